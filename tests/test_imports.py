"""Who may import whom, read from the source, and what an import brings with it, seen from a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# trainers -> probes <- diagnostics <- reports <- studies <- wtdiag, and studies -> trainers
ALLOWED = {
    "probes": {"probes"},
    "trainers": {"trainers", "probes"},
    "diagnostics": {"diagnostics", "probes"},
    "reports": {"reports", "diagnostics", "probes"},
    "studies": {"studies", "reports", "diagnostics", "trainers", "probes"},
}
OURS = {*ALLOWED, "wtdiag"}
CONTRACT = {"wtdiag.probes.records.schema", "wtdiag.probes.errors"}
SOURCES = sorted(path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))


def imports(source: str) -> set[str]:
    """Return the dotted names of all modules that a source imports, wherever in it, the type checker's too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the import path is the file path: no relative imports"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from probes import schema` imports wtdiag.probes.records.schema; `from wtdiag.probes.records.schema import x` imports wtdiag.probes.records.schema
            found |= {name if is_module(name) else str(node.module) for name in names}
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_the_reader_of_imports_sees_them():
    source = "import os.path as p\ndef f():\n    from probes import schema, errors\n    from wtdiag.trainers.rules import RULES\n"
    assert imports(source) == {
        "os.path",
        "wtdiag.probes.records.schema",
        "wtdiag.probes.errors",
        "wtdiag.trainers.rules",
    }
    with pytest.raises(AssertionError, match="no relative imports"):
        imports("from . import x")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_import_only_what_lies_below_them(path):
    folder = path.relative_to(ROOT).parts[0]
    found = imports(path.read_text())
    ours = {name for name in found if name.split(".")[0] in OURS}
    assert {name.split(".")[0] for name in ours} <= ALLOWED[folder]
    if folder == "trainers":
        assert {name for name in ours if name.startswith("probes")} <= CONTRACT
    else:
        assert not {name for name in found if name.split(".")[0] in {"torch", "torchvision"}}


def loaded_by(module: str) -> set[str]:
    """Return what a fresh interpreter has in sys.modules after importing one module."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("folder", ["probes", "diagnostics", "reports"])
def test_import_does_not_load_torch(folder):
    loaded = loaded_by(folder)
    assert folder in loaded
    assert not loaded & {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("None", "Python finds none: the installation is older than the code; run `pip install -e .` again"),
        (
            "util.spec_from_file_location('studies', '/elsewhere/studies/__init__.py')",
            "Python finds /elsewhere/studies;",
        ),
    ],
)
def test_a_package_that_is_not_the_one_beside_the_front_door(found, message):
    code = (
        "from importlib import util; found = util.find_spec\n"
        f"util.find_spec = lambda name: {found} if name == 'studies' else found(name)\n"
        "import wtdiag"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: wtdiag needs its own package 'studies' beside ")
    assert message in done.stderr


def test_no_module_of_the_torch_free_folders_loads_torch():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] not in {"trainers", "studies"} and path.stem != "__main__"
    ]
    loaded = loaded_by(", ".join(modules))
    assert set(modules) <= loaded
    assert not loaded & {"torch", "torchvision", "trainers"}
