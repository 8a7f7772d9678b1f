"""Cost of a study beyond its trainings: 200 tiny cells by ``wtdiag study``, against the same trainings one by one.

``python -m bench studies [SEEDS]`` trains four cells for each seed. The bare trainings run in this process and are
recorded as by ``wtdiag train``, half of them before the study and half after it; both sides have one process and one
thread. Expected result: the whole command (start, worker, folders, results, report) takes less than 10 % more time.
The ratio of CPU times, of all processes of the study, is what to read on a machine that is busy with other work. The
ratio of the study to the training steps alone, without any file, is printed beside it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from wtdiag.studies.engine.cell import Cell, outcome_of
from wtdiag.studies.file.plan import read_plan
from wtdiag.studies.parts.grid import Grid
from wtdiag.trainers.config.datasets import load_data
from wtdiag.trainers.loop.fit import Training

STUDY = """
title = "200 tiny cells"
[settings]
depth = 3
epochs = 20
snapshots = 2
[[grid]]
factors.rule = ["bp", "fa", "kp", "sa"]
factors.seed = {seeds}
"""
SEEDS = 50
LIMIT = 1.10


def run(seeds: int = SEEDS) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "study.toml")
        file.write_text(STUDY.format(seeds=list(range(seeds))))
        cells = list(Grid(Path(name, "bare"), read_plan(str(file))).cells.values())
        first = _bare(cells[::2])
        study, study_cpu = _study(file)
        second = _bare(cells[1::2])
        bare, bare_cpu = first[0] + second[0], first[1] + second[1]
        outcomes = [outcome_of(cell.path) for cell in cells]
        steps = sum(outcome.seconds for outcome in outcomes if outcome is not None)
    print(f"{len(cells)} cells: study {study:.1f} s, the trainings alone {bare:.1f} s, their steps alone {steps:.1f} s")
    print(f"study over trainings         {study / bare:6.3f} (limit {LIMIT:.2f})")
    print(f"  in CPU time                {study_cpu / bare_cpu:6.3f} ({study_cpu:.1f} s, {bare_cpu:.1f} s)")
    print(f"study over training steps    {study / steps:6.3f}")


def _bare(cells: Iterable[Cell]) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, of the trainings one by one."""
    dataset = None
    began, spent = time.perf_counter(), time.process_time()
    for cell in cells:
        dataset = dataset or load_data(cell.settings)
        for _ in Training(cell.settings, cell.path, dataset=dataset):
            pass
    return time.perf_counter() - began, time.process_time() - spent


def _study(file: Path) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds of all processes, of the command."""
    command = [
        Path(sys.executable).with_name("wtdiag"),
        "study",
        str(file),
        "--jobs",
        "1",
        "--out",
        str(file.with_suffix("")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - spent.ru_utime + after.ru_stime - spent.ru_stime
    return time.perf_counter() - began, cpu
