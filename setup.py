"""One package, `wtdiag`, whose rooms stand at the top of the repository; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
DOCS = "share/doc/wtdiag"


def description() -> str:
    """Return README.md for a package index, where relative links lead nowhere, as this project has no public address.

    Pictures are left out, and a link becomes its text with the path, which is below share/doc/wtdiag of an installed
    wheel. Once there is a public address, relative links are to become absolute here.
    """
    text = re.sub(
        r"^!\[[^\]]*\]\([^)]*\)\n\n", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    links = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)")
    return links.sub(lambda link: link[1] if link[1] == link[2] else f"{link[1]} ({link[2]})", text)


def pages() -> list[tuple[str, list[str]]]:
    """Return what pages and reports refer to, by the folder that a wheel puts it into."""
    folders = {
        "": ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"],
        "docs": ["docs/*.md"],
        "docs/tutorials": ["docs/tutorials/*.md"],
        "docs/pictures": ["docs/pictures/*"],
        "docs/gallery": ["docs/gallery/*"],
    }
    return [
        (
            f"{DOCS}/{folder}".rstrip("/"),
            [str(path.relative_to(ROOT)) for each in files for path in sorted(ROOT.glob(each))],
        )
        for folder, files in folders.items()
    ]


if __name__ == "__main__":
    setup(
        long_description=description(),
        long_description_content_type="text/markdown",
        package_dir={"": "."},  # an editable install is then a plain path entry that every tool resolves
        # Links such as wtdiag/probes -> ../probes let the rooms be imported as wtdiag.probes from a checkout, an
        # editable install and a wheel alike.
        packages=find_packages(include=["wtdiag", "wtdiag.*"]),
        data_files=pages(),
    )
