"""Names that stand once: two classes never share one, and two files only where they do the same."""

import ast
import re
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest

import wtdiag

ROOT = Path(__file__).parents[1]
FOLDERS = ("probes", "trainers", "diagnostics", "reports", "studies", "wtdiag", "bench")
# A link of the package leads to each folder: what lies behind one is not read twice.
SOURCES = sorted({path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")})

SAME = {
    "akrout2019": "a paper's rules, and what it claims of them",
    "kunin2020": "a paper's rules, and what it claims of them",
    "analyze": "a command, and the function that it calls",
    "compare": "a command, and the function that it calls",
    "study": "a command, and what it makes",
    "sweep": "a command, and what it makes",
    "transfer": "a command, and what it makes",
    "base": "what the entries of a registry are made of",
    "snapshots": "snapshots written and read, and how fast that is",
}
"""By the name that files share, the one thing that they all do."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def files() -> dict[str, list[str]]:
    """Return the sources by their name."""
    places = defaultdict(list)
    for path in SOURCES:
        if not path.stem.startswith("__"):
            places[path.stem].append(named(path))
    return places


def test_files_share_a_name_only_where_they_do_the_same():
    shared = {name: places for name, places in files().items() if len(places) > 1}
    assert shared.keys() == SAME.keys(), shared


@pytest.mark.parametrize("private", [False, True])
def test_each_class_has_a_name_of_its_own(private):
    places = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("_") == private:
                places[node.name].append(named(path))
    assert len(places) > 20
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_version_is_the_same_wherever_it_is_written():
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert wtdiag.__version__ == cited == metadata.version("wtdiag")
