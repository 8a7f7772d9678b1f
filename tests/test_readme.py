"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import pytest

import wtdiag

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_commands_and_code_run_word_by_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick_start = next(block for block in blocks("") if block.startswith("wtdiag train"))
    for line in quick_start.splitlines():
        with pytest.raises(SystemExit) as end:
            wtdiag.main(shlex.split(line)[1:])
        assert not end.value.code
    code = blocks("python")
    assert code
    namespace = {}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)
    assert Path("runs/mine/snapshots").is_dir()


def test_every_rule_is_in_the_table():
    for name in wtdiag.RULES:
        assert f"`{name}`" in README
