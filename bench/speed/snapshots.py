"""Cost of recording: how long training stalls, and how fast a snapshot is written.

The network is torchvision's ResNet-18 under feedback alignment: W and B of every layer, 94 MB. Expected result: a stall
of at most 20 ms per 94 MB, which is little more than copying the bytes takes, and a write that takes at most 1.25 times
as long as a raw one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import torch
import torchvision
from torch import nn

from bench.speed.timing import paired_ratios
from wtdiag.probes.records.netcdf import Form
from wtdiag.probes.records.schema import write_snapshot
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.record.staging import Staging

ROUNDS = 15


def run() -> None:
    """Measure and print."""
    model = transport_free(torchvision.models.resnet18(), "fa")
    with tempfile.TemporaryDirectory() as folder:
        size, writes = _writes(model, Path(folder))
        stalls = _stalls(model, Path(folder), size)
    milliseconds = {name: 1e3 * median(times) for name, times in stalls.items()}
    over_copy = median(a / b for a, b in zip(stalls["snapshot"], stalls["plain copy"], strict=True))
    print(f"ResNet-18, fa: {size / 1e6:.1f} MB a snapshot, {ROUNDS} rounds, medians")
    print(f"stall of training            {milliseconds['snapshot'] * 94e6 / size:6.1f} ms per 94 MB (limit 20)")
    print(f"  over a plain copy          {over_copy:6.2f}")
    print(f"copy kept for emergencies    {milliseconds['stage']:6.1f} ms")
    for name, (seconds, ratio) in writes.items():
        print(f"{name:<28} {1e3 * seconds:6.1f} ms, {ratio:.2f} of the raw write")
    print("  (limit for a snapshot: 1.25 of the raw write)")


def _writes(model: nn.Module, folder: Path) -> tuple[int, dict[str, tuple[float, float]]]:
    staging = Staging()
    staging.fill(0, model)
    snapshot = staging.snapshot()
    form = Form()
    write_snapshot(folder / "snapshot.nc", snapshot, form)
    data = (folder / "snapshot.nc").read_bytes()

    def raw_write() -> None:
        with open(folder / "raw", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    functions = {
        "raw write + fsync": raw_write,
        "write of a snapshot": lambda: write_snapshot(folder / "snapshot.nc", snapshot, form),
    }
    return len(data), paired_ratios(functions, rounds=ROUNDS)


def _stalls(model: nn.Module, folder: Path, size: int) -> dict[str, list[float]]:
    """Return the seconds of each call in every round, without the writing between the calls."""
    source = torch.zeros(size, dtype=torch.uint8)
    target = source.clone()
    steps = count()
    with Recorder(model, folder / "run") as recorder:
        functions: dict[str, Callable[[], object]] = {
            "snapshot": lambda: recorder.snapshot(next(steps)),
            "plain copy": lambda: target.copy_(source),
            "stage": lambda: recorder.stage(next(steps)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(ROUNDS + 2):
            for name, function in functions.items():
                began = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - began)
                recorder.flush()
    return {name: times[2:] for name, times in seconds.items()}
