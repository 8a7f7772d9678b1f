"""The estimates of a dry run beside one measured epoch, for the table of docs/scale.md: ``python -m bench estimates``.

An estimate is steps × time of a step on noise, which `wtdiag study --dry-run` measures for each kind of run. Here each
kind is then trained for one epoch as `wtdiag train` does, and the time of its steps, with the loading of their batches,
is compared with the estimate. The two are measured in turn, several times, because a machine is not always equally
fast. Expected result: the estimate is within 25 % of the epoch.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.evidence.page import fill, table
from wtdiag.studies.engine.cell import outcome_of
from wtdiag.trainers.config.datasets import load_data
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import Data
from wtdiag.trainers.loop.cost import measure
from wtdiag.trainers.loop.fit import Training

CASES: tuple[dict[str, Any], ...] = (
    {"rule": "bp", "model": "mlp", "data": "digits"},
    {"rule": "kp", "model": "mlp", "data": "glyphs", "width": 512},
    {"rule": "ia", "model": "conv", "data": "glyphs"},
    {"rule": "sa", "model": "resnet8", "data": "glyphs"},
    {"rule": "fa", "model": "resnet20", "data": "glyphs"},
)
ROUNDS = 5
HEADS = (
    "rule",
    "network",
    "data",
    "steps",
    "estimate (s)",
    "its steps (s)",
    "estimate over steps",
    "smallest to largest",
)


def run() -> None:
    """Measure, print, and write the table to docs/scale.md."""
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        settings = Settings(epochs=1, snapshots=2, **case)
        dataset = load_data(settings)
        pairs = [pair(settings, dataset) for _ in range(ROUNDS)]
        ratios = sorted(estimate / spent for _, estimate, spent in pairs)
        estimate, spent = (statistics.median(each[place] for each in pairs) for place in (1, 2))
        network = f"{settings.model}, width {settings.width}" if "width" in case else settings.model
        row = [f"`{settings.rule}`", network, settings.data, str(pairs[0][0]), f"{estimate:.2f}", f"{spent:.2f}"]
        rows.append([*row, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f}"])
        print(*rows[-1], sep="  ", flush=True)
    fill("scale.md", "estimates", table(HEADS, rows))


def pair(settings: Settings, dataset: Data) -> tuple[int, float, float]:
    """Return the number of steps of a run, the estimate of their seconds, and what they took."""
    cost = measure(settings, dataset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        for _ in Training(settings, path, dataset=dataset):
            pass
        outcome = outcome_of(path)
    assert outcome is not None
    return cost.steps, cost.steps * cost.step_seconds, outcome.seconds
