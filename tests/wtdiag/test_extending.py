"""What docs/extending.md shows is what happens."""

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import wtdiag
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.probes import PROBES
from wtdiag.trainers.rules import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language):
    every = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [text for marked, text in every if marked == language]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files of the page; what they register is forgotten afterwards."""
    for registry in (RULES, PROBES, KINDS):
        monkeypatch.setattr(registry, "entered", dict(registry))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for block in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
    yield tmp_path
    for added in set(sys.modules) - before:
        if Path(getattr(sys.modules[added], "__file__", None) or "/").parent == tmp_path:
            del sys.modules[added]


def test_the_commands_of_the_page_run(folder, capsys):
    printed = []
    commands = [line for block in blocks("") for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == ["check", "audit"]
    for line in commands:
        with pytest.raises(SystemExit) as end:
            wtdiag.main(line.split()[1:])
        assert not end.value.code
        printed.append(capsys.readouterr().out)
    assert "input-variance passes all checks." in printed[0]
    assert "2  (Layer)  fixed feedback; its error path does not see W" in printed[1]


def test_the_code_of_the_page_runs(folder):
    (used,) = (block for block in blocks("python") if not block.startswith("# "))
    exec(compile(used, "docs/extending.md", "exec"), {})


def test_the_entry_points_of_the_page_name_what_its_files_register(folder):
    groups = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    assert set(groups) == {"wtdiag.rules", "wtdiag.probes", "wtdiag.findings"}
    found = {}
    for points in groups.values():
        for name, value in points.items():
            module, _, attribute = value.partition(":")
            found[name] = getattr(import_module(module), attribute)
    assert RULES["input-variance"] is found["input-variance"]
    assert PROBES["peak_ratio"].function is found["peak_ratio"]
    assert KINDS["peaked-feedback"].detect is found["peaked-feedback"]
    assert PROBES["peak_ratio"](forward=np.eye(2), feedback=3 * np.ones((2, 2))) == 3.0
