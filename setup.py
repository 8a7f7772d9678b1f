"""Five ordinary top-level packages and one front door; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    package_dir={"": "."},  # an editable install is then a plain path entry that every tool resolves
    packages=find_packages(include=["diagnostics*", "probes*", "reports*", "studies*", "trainers*"]),
    py_modules=["wtdiag"],
)
