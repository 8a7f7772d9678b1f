"""The commands that write, on tasks of seconds, for campaigns that stop them: what each begins from, and its call."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TINY = ("--depth", "2", "--width", "16", "--snapshots", "6", "--probe-size", "8", "--device", "cpu")
_STUDY = """title = "Two rules"
claims = []

[settings]
depth = 2
width = 16
epochs = 0.5
snapshots = 4
probe_size = 8

[[grid]]

[grid.factors]
rule = ["bp", "fa"]
seed = [0, 1]
"""
_VARIES = ("throughput", "seconds", "command", "datetime_start", "datetime_complete")
"""Entries that no two starts share."""
_TIMED = re.compile(rb"(<dt>training time</dt><dd><strong>)[^<]*")
"""The time that a page tells; on a busy machine two starts differ in it."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    name : str
        Of the command.
    words : tuple of str
        Its arguments; {} stands for the folder of the case. Called again, it goes on where it stopped.
    begins_from : str
        Which of the folders that `prepare` makes is copied into that of the case first; "" for none.
    """

    name: str
    words: tuple[str, ...]
    begins_from: str = ""

    def arguments(self, folder: Path) -> list[str]:
        """Return the command line for a folder."""
        words = [word.replace("{}", str(folder)) for word in self.words]
        return [sys.executable, "-c", "import wtdiag; wtdiag.main()", self.name, *words]


COMMANDS = (
    Command("train", ("--resume", "--rule", "ia", "--epochs", "2", *TINY, "--out", "{}/run")),
    Command("analyze", ("{}/run", "--format", "html"), "recorded"),
    Command("report", ("{}/run", "--format", "html"), "analysed"),
    Command("study", ("{}/study.toml", "--jobs", "1", "--format", "html", "--out", "{}/study"), "described"),
    Command(
        "sweep",
        (
            *("--rule", "fa", "--search", "lr=log:0.01:0.1", "--sampler", "grid", "--trials", "2", "--jobs", "1"),
            *("--no-prune", "--epochs", "0.5", *TINY, "--format", "html", "--out", "{}/sweep"),
        ),
    ),
)


def prepare(folder: Path) -> None:
    """Make what commands begin from: a recorded run, an analysed one, the file of a study."""
    train, analyze, *_ = COMMANDS
    for command, name in ((train, "recorded"), (analyze, "analysed")):
        if name == "analysed":
            shutil.copytree(folder / "recorded", folder / name)
        (folder / name).mkdir(exist_ok=True)
        subprocess.run(command.arguments(folder / name), check=True, capture_output=True, env=environment())
    (folder / "described").mkdir()
    (folder / "described" / "study.toml").write_text(_STUDY)


def environment() -> dict[str, str]:
    """Return the environment of a command: one thread, for campaigns run several side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by their paths, without the entries that no two starts share."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): _lasting(path, folder) for path in files}


def comparable(first: dict[str, bytes], second: dict[str, bytes]) -> set[str]:
    """Return the names of the files that two undisturbed starts leave bitwise equal."""
    return {name for name in first.keys() & second.keys() if first[name] == second[name]}


def _lasting(path: Path, folder: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = content.splitlines() if path.suffix == ".jsonl" else [content]
        content = b"\n".join(json.dumps(_without(json.loads(line))).encode() for line in lines)
    if path.suffix == ".html":
        content = _TIMED.sub(rb"\1", content)
    return content.replace(str(folder).encode(), b"{}")


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in _VARIES}
    return [_without(item) for item in value] if isinstance(value, list) else value
