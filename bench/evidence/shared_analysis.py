"""An analysis on a dask cluster of two workers beside one on a single thread, for the table of docs/scale.md.

``python -m bench shared_analysis [MODEL]`` trains a few steps of ResNet-18, or of a smaller network, with as many
snapshots as ``wtdiag train`` takes by itself, on images of two sizes, and analyses them by ``wtdiag analyze``, which
writes its reports too: on one core, and with ``--scheduler``. The speed-up is the ratio of their times. On a machine
that is busy with other work these times say little; the CPU times do: with two cores of their own, the command and its
two workers take as long as the command and the busier worker. Expected result: 1.7 times as fast.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed import Client, LocalCluster

from bench.evidence.commands import environment
from bench.evidence.page import fill, table
from wtdiag.probes.records.schema import open_run

WORKERS, TARGET = 2, 1.7
SIDES = (28, 64)
"""Pixels of a side of the images. What a snapshot costs grows with them, what is not shared does not."""
HEADS = ("network, snapshots", "where", "s", "CPU, s: command", "each worker", "speed-up", "with cores of its own")


def run(model: str = "resnet18") -> None:
    """Measure, print, and write the table to docs/scale.md."""
    text = table(HEADS, [row for side in SIDES for row in _rows(model, side)])
    print(text, f"target {TARGET}")
    fill("scale.md", "shared analysis", text)


def _rows(model: str, side: int) -> list[list[str]]:
    """Measure one size of images, and return its rows."""
    with tempfile.TemporaryDirectory() as name:
        alone, shared = (Path(name, each) for each in ("alone", "shared"))
        data = ("--data", "glyphs", "--image-size", str(side))
        trained = ("--rule", "fa", "--model", model, *data, "--epochs", "0.2")  # 19 steps
        _call("train", *trained, "--snapshot-every", "1", "--out", str(alone))
        snapshots = len(open_run(alone).steps)
        shutil.copytree(alone, shared)
        with (
            LocalCluster(n_workers=WORKERS, threads_per_worker=1, memory_limit=None, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            before = client.run(time.process_time)
            seconds, cpu = _call("analyze", str(shared), "--scheduler", cluster.scheduler_address)
            spent = [after - before[worker] for worker, after in client.run(time.process_time).items()]
        single, single_cpu = _call("analyze", str(alone))
    freed = single_cpu / (cpu + max(spent))
    each = ", ".join(f"{worker:.0f}" for worker in spent)
    what, rest = f"{model}, {side} × {side} pixels, {snapshots}", (f"{single / seconds:.2f}", f"{freed:.2f}")
    return [
        [what, "one thread", f"{single:.0f}", f"{single_cpu:.0f}", "", "", ""],
        ["", f"{WORKERS} workers", f"{seconds:.0f}", f"{cpu:.0f}", each, *rest],
    ]


def _call(*words: str) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a command on one core."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "wtdiag", *words],
        check=True,
        env=environment(),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
