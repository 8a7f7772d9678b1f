"""Who may import whom, read from the source, and what an import brings with it, seen from a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# wtdiag -> studies -> reports -> diagnostics -> probes <- trainers <- studies
FOLDERS = {
    "probes": {"probes"},
    "trainers": {"trainers", "probes"},
    "diagnostics": {"diagnostics", "probes"},
    "reports": {"reports", "diagnostics", "probes"},
    "studies": {"studies", "reports", "diagnostics", "trainers", "probes"},
    "wtdiag": {"wtdiag", "studies", "reports", "diagnostics", "trainers", "probes"},
    "bench": {"bench", "wtdiag", "studies", "reports", "diagnostics", "trainers", "probes"},
}
# All of probes that trainers may import.
CONTRACT = {"probes.records", "probes.errors", "probes.discovery", "probes.floor", "probes.version"}
# Inside a folder a room may import the rooms that stand before it; what stands in one place may import each other.
ORDER = {
    "probes": ["errors version", "discovery floor", "records", "measure", "registry", "kernels", "measures", ""],
    "trainers": [
        "data models layers.operations", "rules.local", "rules",
        "layers.synapse layers.error_path layers.place layers.same_update layers.batch_axis",
        "layers.factored_feedback layers.perturbed_synapse",
        "layers.direct_points layers.synaptic",
        "layers.matrices layers.conversions", "layers.types", "layers.watch", "layers.convert",
        "layers.optimizer_groups layers.revert", "conformance",
        "config", "observe", "record", "callbacks", "loop", "",
    ],
    "diagnostics": ["analysis", "findings", "comparison", "claims", ""],
    "reports": ["figures", "document", "run", "publish comparison runs_index", "study", "gallery", ""],
    "studies": ["file", "predict", "engine", "parts", "study", "estimate", ""],
    "wtdiag": ["workflow run_checks", "cli", ""],
    "bench": ["speed evidence", ""],
}  # fmt: skip
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the name of a source's module, without the package's own: ``probes.records.files``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path) for path in SOURCES}


def imports(source: str) -> set[str]:
    """Return the dotted names of all modules that a source imports, wherever in it, the type checker's too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the import path is the file path: no relative imports"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from wtdiag.probes import records` imports that module; `from wtdiag.probes import PROBES` imports probes
            names |= {name if plain(name) in MODULES else str(node.module) for name in inside}
    return names


def plain(name: str) -> str:
    """Return a module's name without the package's own, if it is that of a folder: ``probes.records``."""
    short = name.removeprefix("wtdiag.")
    return short if short.split(".")[0] in FOLDERS else name


def place(name: str) -> int:
    """Return where a module stands in the order of its folder: in the room that names it most closely."""
    folder, _, rest = name.partition(".")
    rooms = [(room, number) for number, group in enumerate(ORDER[folder]) for room in group.split() or [""]]
    own = [(len(room), number) for room, number in rooms if not room or rest == room or rest.startswith(f"{room}.")]
    return max(own)[1]


def test_the_reader_of_imports_sees_them():
    source = (
        "import os.path as p\ndef f():\n    from wtdiag.probes import records, PROBES\n"
        "    from wtdiag.trainers.rules import RULES\n"
    )
    assert imports(source) == {"os.path", "wtdiag.probes.records", "wtdiag.probes", "wtdiag.trainers.rules"}
    with pytest.raises(AssertionError, match="no relative imports"):
        imports("from . import x")


def test_the_order_of_rooms_names_rooms():
    assert [place(name) for name in ("trainers.rules.local", "trainers.rules.base", "trainers.rules")] == [1, 2, 2]
    for folder, groups in ORDER.items():
        for room in " ".join(groups).split():
            assert f"{folder}.{room}" in MODULES, room


def test_names_of_the_folders_are_imported_from_the_package():
    bare = [(path, name) for path in SOURCES for name in imports(path.read_text()) if name.split(".")[0] in FOLDERS]
    assert [(path.name, name) for path, name in bare if not name.startswith(("wtdiag", "bench"))] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_and_rooms_import_only_what_lies_below_them(path):
    name = module_name(path)
    folder = name.split(".")[0]
    every = imports(path.read_text())
    ours = {plain(each) for each in every if plain(each).split(".")[0] in FOLDERS}
    assert {each.split(".")[0] for each in ours} <= FOLDERS[folder]
    above = {each for each in ours if each.split(".")[0] == folder and place(each) > place(name)}
    # A package may be imported for the names that its own docstring lists only where nothing of it lies above.
    assert not above
    if folder == "trainers":
        assert {".".join(each.split(".")[:2]) for each in ours if each.startswith("probes")} <= CONTRACT
    elif folder not in {"studies", "wtdiag", "bench"}:
        assert not {each for each in every if each.split(".")[0] in {"torch", "torchvision"}}


def loaded_by(*modules: str) -> set[str]:
    """Return what a fresh interpreter has in sys.modules after importing some modules."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "folder", ["wtdiag.probes", "wtdiag.diagnostics", "wtdiag.reports", "wtdiag.cli", "wtdiag.trainers.rules"]
)
def test_import_does_not_load_torch(folder):
    loaded = loaded_by(folder)
    assert folder in loaded
    assert not loaded & {"torch", "torchvision"}


def test_no_module_of_the_torch_free_folders_loads_torch():
    modules = [
        f"wtdiag.{name}"
        for name in sorted(MODULES)
        if name.split(".")[0] in {"probes", "diagnostics", "reports"} and not name.endswith("__main__")
    ]
    loaded = loaded_by(*modules)
    assert set(modules) <= loaded
    assert not loaded & {"torch", "torchvision", "wtdiag.trainers"}


def test_a_project_with_folders_of_the_same_names_can_use_wtdiag(tmp_path):
    for name in ("trainers", "probes", "studies"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    for name in ("reports", "diagnostics"):
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    (tmp_path / "use.py").write_text(
        "import trainers, probes, studies, reports, diagnostics\n"
        "assert all(each.mine for each in (trainers, probes, studies, reports, diagnostics))\n"
        "import wtdiag, torch\n"
        "model = wtdiag.transport_free(torch.nn.Sequential(torch.nn.Linear(3, 2)), 'fa')\n"
        "print(wtdiag.PROBES['weight_angle'].units, model[0].feedback.shape)\n"
    )
    path = {"PYTHONPATH": str(ROOT), "PATH": ""}
    words = [sys.executable, str(tmp_path / "use.py")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=path)
    assert done.stdout == "degree torch.Size([2, 3])\n", done.stderr
