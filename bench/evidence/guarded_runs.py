"""The effect of ``--s-guard`` on runs that collapse without it.

``python -m bench guard`` trains rules × learning rates of B on digits, as `bench.evidence.early_warning` does, and a
convolutional network on glyphs, each with the guard and without. It writes a table to docs/theory.md and takes two
minutes. Expected result: no run with the guard diverges by a step that is too large.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import wtdiag
from bench.evidence.page import fill, table
from wtdiag.trainers.config.settings import Settings

DEPTH = 8
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        (rule, {"depth": DEPTH, "epochs": 4, "feedback_lr": rate})
        for rule in ("wm-reg", "ia", "aa")
        for rate in (2.0, 4.0)
    ),
    *(("ia", {"model": "conv", "data": "glyphs", "epochs": 0.5, "feedback_lr": rate}) for rate in (4.0, 16.0)),
)
HEADS = ("rule", "network", "feedback lr", "without the guard", "with it", "smallest factor")


def outcome(rule: str, settings: dict[str, Any], *, guard: bool) -> tuple[str, float]:
    """Return how a run ended, and the smallest factor of the guard."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = Settings(rule=rule, feedback_optimizer="sgd", snapshots=2, s_guard=guard, **settings)
        *_, progress = wtdiag.Training(chosen, Path(folder, "run"))
        metrics = wtdiag.open_run(Path(folder, "run")).metrics
    smallest = float(metrics.feedback_scale.min()) if guard else 1.0
    finished = progress.status == "finished"
    return f"{progress.test_accuracy:.1%}" if finished else f"diverged at step {progress.step}", smallest


def rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each case."""
    for rule, settings in CASES:
        before, _ = outcome(rule, settings, guard=False)
        after, smallest = outcome(rule, settings, guard=True)
        network = settings.get("model", f"mlp, depth {DEPTH}")
        yield rule, network, f"{settings['feedback_lr']:g}", before, after, f"{smallest:.2g}"


def run() -> None:
    """Print the table, and write it to docs/theory.md."""
    torch.set_num_threads(1)
    made = []
    for row in rows():
        made.append(row)
        print(*row, sep="  ", flush=True)
    fill("theory.md", "guard", table(HEADS, made))
