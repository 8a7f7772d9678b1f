"""Every block of code in README.md and docs/ is run, or is named here with the reason why it is only read."""

import re
import shlex
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import wtdiag
from wtdiag.cli import cli
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.studies.file.plan import read_plan
from wtdiag.trainers.config.settings import from_mapping

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "README.md": "test_readme",
    "analysis.md": "test_docs",
    "extending.md": "test_extending",
    "gallery.md": "doctests of reports/figures",
    "loops.md": "test_docs",
    "other-code.md": "test_docs",
}
"""Pages whose blocks of Python other tests run, because they look at what comes of them."""
READ = {"scale.md": "needs a queue of Slurm"}
"""Pages whose blocks of Python are compiled only."""
SYSTEM = (
    "python3 -m venv", ". .venv/bin/activate", "dask ", "for ", "done", "sbatch ", "CUDA_VISIBLE_DEVICES=",
    "trainer = ", "net = ", "with ", "...", "from ", "torchrun ",
)  # fmt: skip
"""How lines begin that are no commands of wtdiag, make, pip or bench, but of the system, or code of extras."""


SETTINGS = [name for name in wtdiag.Settings.__dataclass_fields__ if name not in ("rule", "coefficients")]


def blocks(page, language):
    """Return the blocks of a language, each with as many lines before it as tell its place in a traceback."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", text, flags=re.MULTILINE | re.DOTALL)
    return ["\n" * text[: each.start(2)].count("\n") + each[2] for each in found if each[1] == language]


def commands():
    """Yield the page and the words of each line of a block without a language, continued lines joined."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.strip()
                if line and not line.startswith("#"):
                    yield page.name, line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, a data set and a class, of the names that the pages use."""
    folder = tmp_path_factory.mktemp("pages")
    for rule, path in (("ia", "runs/ia8"), ("bp", "runs/bp8")):
        settings = wtdiag.Settings(rule=rule, depth=3, epochs=1, snapshots=2, batch_size=256)
        list(wtdiag.Training(settings, folder / path))
    with pytest.raises(SystemExit):
        wtdiag.main(["analyze", str(folder / "runs" / "ia8"), "--fast", "--format", "html"])
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE],
                         ids=lambda page: page.name)  # fmt: skip
def test_python_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    plt.close("all")
    rng = np.random.default_rng(0)
    arrays = {"X": rng.normal(size=(8, 4)), "y": np.arange(8) % 2}
    names = {"__name__": "page", **arrays, **{f"{name}_test": value for name, value in arrays.items()}}
    for block in blocks(page, "python"):
        code = compile(block, page.name, "exec")
        if page.name not in READ:
            exec(code, names)
    plt.close("all")


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(*each, id=f"{each[0]}: {each[1][:40]}") for each in commands()]
)
def test_commands_exist(page, line, monkeypatch):
    words = shlex.split(line, comments=True)
    match words:
        case ["wtdiag", "COMMAND" | "--help", *_] | ["wtdiag", *_, "--help"]:
            pass
        case ["wtdiag", name, *arguments]:
            with cli.commands[name].make_context(f"wtdiag {name}", _plain(arguments)) as context:
                options = context.params
            assert all(rule in (*wtdiag.RULES, "input-variance") for rule in options.get("rules") or ())
            for rule in options.get("rules") or (["fa"] if name == "train" and not options["config"] else ()):
                settings = {each: value for each, value in options.items() if value is not None and each in SETTINGS}
                if rule in wtdiag.RULES:
                    from_mapping(settings | {"rule": rule}, page)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", *what]:
            extras = {extra for each in what for inside in re.findall(r"\[(.*)\]", each) for extra in inside.split(",")}
            assert extras <= set(metadata.metadata("wtdiag").get_all("Provides-Extra") or ())
        case ["python", "-m", "bench", name, *_]:
            assert list((ROOT / "bench").rglob(f"{name}.py")) or name in (ROOT / "bench" / "__main__.py").read_text()
        case _:
            assert line.startswith(SYSTEM), f"{page}: {line}: no test knows what this is"


def _plain(arguments):
    """Return arguments without what stands for more, and without a redirection."""
    return [word for word in arguments[: arguments.index(">")] if word != "..."] if ">" in arguments else arguments


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_toml_is_valid(page, tmp_path):
    for block in blocks(page, "toml"):
        content = tomllib.loads(block)
        if "rule" in content:
            from_mapping(content, page.name)
        elif "settings" in content:
            (tmp_path / "study.toml").write_text(block)
            assert read_plan(str(tmp_path / "study.toml")).title
        else:
            assert content.keys() <= {"rules", "grid", "project"}


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_pages_that_are_named_here_exist():
    assert ELSEWHERE.keys() | READ.keys() <= {page.name for page in PAGES}


def test_each_definition_has_a_section_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    registries = import_module("registries")
    entries = {
        "rules": ("rule", wtdiag.RULES),
        "probes": ("probe", registries.known()),
        "findings": ("finding", registries.KINDS),
        "settings": ("setting", wtdiag.Settings.__dataclass_fields__),
        "optimizers": ("optimizer", OPTIMIZERS),
        "commands": ("command", cli.commands),
    }
    assert entries.keys() == registries.SECTIONS.keys()
    for page, (sort, names) in entries.items():
        text = "\n\n".join(registries.SECTIONS[page]())
        assert [name for name in names if f"({sort}-{name})=" not in text] == []
        for line in text.splitlines():
            assert not re.fullmatch(r"1\. |\*\*When it fires\.\*\* ", line), f"{page}: a definition has no docstring"
