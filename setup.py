"""One package, `wtdiag`, whose rooms stand at the top of the repository; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    package_dir={"": "."},  # an editable install is then a plain path entry that every tool resolves
    # Links such as wtdiag/probes -> ../probes let the rooms be imported as wtdiag.probes from a checkout, an editable
    # install and a wheel alike.
    packages=find_packages(include=["wtdiag", "wtdiag.*"]),
)
