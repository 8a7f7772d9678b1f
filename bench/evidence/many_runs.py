"""What the commands that read many runs cost for 100 and for 1,000 of them, for the table of docs/scale.md.

``python -m bench many_runs [RUNS]`` trains and analyses a short run of each rule, and copies them: under other seeds,
as the cells of a study, and under other learning rates and coefficients, as a random search leaves them, where few have
a pair. The commands are called on a tenth of the runs and on all. Their start, which is the time for as few runs as
there are rules, is taken off before the two are compared: a command whose growth is 10 does ten times the work for ten
times the runs. Expected result: no command grows by much more than that.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wtdiag
from bench.evidence.commands import environment
from bench.evidence.page import fill, table
from wtdiag.diagnostics.analysis.analyze import write_analysis
from wtdiag.diagnostics.comparison.results import STUDY
from wtdiag.diagnostics.findings.finding import write_findings
from wtdiag.probes.records.schema import ANALYSIS, CONFIG, FINDINGS, read_json, write_json
from wtdiag.studies.engine.cell import Cell
from wtdiag.studies.file.plan import read_plan
from wtdiag.studies.parts.grid import Grid
from wtdiag.trainers.loop.fit import Training

RUNS, PART = 1000, 10
RULES = ("bp", "fa", "kp", "ia")
DESCRIBED = """
title = "Many runs"
[settings]
epochs = 1
snapshots = 2
[[grid]]
factors.rule = {rules}
factors.seed = {seeds}
"""
HEADS = ("command", "CPU, s: start", "{few} runs", "{many} runs", "growth", "memory, MB: {few}", "{many}")


@dataclass(frozen=True)
class Spent:
    """What a command has cost: CPU seconds of all its processes, and the most memory that it held itself, in MB."""

    seconds: float
    memory: float


def run(runs: int = RUNS) -> None:
    """Measure, print, and write the table to docs/scale.md."""
    counts = len(RULES), runs // PART, runs
    with tempfile.TemporaryDirectory() as name:
        folders = [make(Path(name, str(count)), count) for count in counts]
        rows = []
        for title, words in COMMANDS.items():
            start, few, many = (spent(words, folder) for folder in folders)
            growth = (many.seconds - start.seconds) / max(1e-9, few.seconds - start.seconds)
            seconds = [f"{each.seconds:.1f}" for each in (start, few, many)]
            memory = [f"{each.memory:.0f}" for each in (few, many)]
            rows.append([title, *seconds, f"{growth:.1f}", *memory])
            print(*rows[-1], sep="  ", flush=True)
    heads = [head.format(few=counts[1], many=f"{runs:,}") for head in HEADS]
    fill("scale.md", "many runs", table(heads, rows))


COMMANDS = {
    "`wtdiag index`, of a study": ("index", "{}/study/cells"),
    "`wtdiag compare`, of a study": ("compare", "{}/study/cells"),
    "`wtdiag compare`, of a search": ("compare", "{}/search"),
    "`wtdiag study`, all trained": ("study", "{}/study.toml", "--out", "{}/study", "--jobs", "1", "--format", "html"),
}
"""The commands, in which {} stands for the folder that `make` makes."""


def make(folder: Path, count: int) -> Path:
    """Make a study and a search of ``count`` runs; the first of each rule is trained and analysed, the rest copied."""
    folder.mkdir()
    file = folder / "study.toml"
    file.write_text(DESCRIBED.format(rules=json.dumps(RULES), seeds=list(range(count // len(RULES)))))
    (folder / "study").mkdir()
    write_json(folder / "study" / STUDY, {})
    made: dict[str, Path] = {}
    for cell in Grid(folder / "study", read_plan(str(file))).cells.values():
        if (first := made.get(cell.settings.rule)) is None:
            made[cell.settings.rule] = cell.path
            _record(cell)
        else:
            _copy(first, cell.path, {"seed": cell.settings.seed})
    for number in range(count):
        rule, lr = RULES[number % len(RULES)], 1 / (1 + number // 8)
        own = {"coefficients": {"decay": lr}} if rule in ("kp", "ia") else {}
        _copy(made[rule], folder / "search" / str(number), {"seed": 0, "lr": lr + (rule == "ia"), **own})
    return folder


def _record(cell: Cell) -> None:
    for _ in Training(cell.settings, cell.path):
        pass
    write_analysis(wtdiag.analyze(cell.path, fast=True), cell.path / ANALYSIS)
    write_findings(wtdiag.diagnose(cell.path), cell.path / FINDINGS)


def _copy(first: Path, path: Path, changes: Mapping[str, Any]) -> None:
    """Make a run from one with other settings, whose other files it shares."""
    shutil.copytree(first, path, copy_function=os.link)
    config = read_json(first / CONFIG)
    write_json(path / CONFIG, {**config, "settings": {**config["settings"], **changes}})


_OBSERVED = """
import atexit, pathlib
atexit.register(lambda: pathlib.Path({state!r}).write_bytes(pathlib.Path("/proc/self/status").read_bytes()))
import wtdiag
wtdiag.main()
"""
"""A command that leaves its peak of memory, which Linux counts from its own start only there."""


def spent(words: Sequence[str], folder: Path) -> Spent:
    """Return what a command has cost in a folder that `make` has made."""
    arguments = [word.replace("{}", str(folder)) for word in words]
    with tempfile.NamedTemporaryFile("r") as state:
        command = [sys.executable, "-c", _OBSERVED.format(state=state.name), *arguments]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (peak,) = (int(line.split()[1]) for line in state if line.startswith("VmHWM:"))
    return Spent(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, peak / 1e3)
