"""How often "no-better-than-frozen" is right: in runs whose lower layers never learned, and in runs whose layers did.

``python -m bench unearned [SEED...]`` trains them, measures the baseline of each, and prints the counts, whose line
belongs in diagnostics/findings/thresholds.py. The threshold, zero, was chosen on no run. It takes about two minutes on
one core that nobody else uses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import wtdiag
from wtdiag.diagnostics.findings.thresholds import Record, limit
from wtdiag.trainers.layers.convert import synapses

KIND = "no-better-than-frozen"
SEEDS = (6, 7, 8)
NETWORKS = {
    "mlp": {"model": "mlp", "depth": 6, "data": "digits", "epochs": 5},
    "conv": {"model": "conv", "depth": 4, "width": 8, "data": "glyphs", "image_size": 8, "epochs": 2},
}
BUDGET = {"epochs": 5, "seeds": 5, "examples": 1500, "tested": 1000, "device": "cpu"}


def frozen(training: wtdiag.Training) -> None:
    """Let only the last layer learn."""
    *_, (_, last) = synapses(training.model)
    own = {id(parameter) for parameter in last.parameters()}
    for parameter in training.model.parameters():
        if id(parameter) not in own:
            parameter.requires_grad_(False)
    for _ in training:
        pass


def misled(training: wtdiag.Training) -> None:
    """Let all layers learn from signals of feedback that is drawn anew at each step."""
    drawn = torch.Generator().manual_seed(training.settings.seed)
    for _ in training:
        for _, layer in synapses(training.model):
            feedback = layer.feedback.data
            feedback.copy_(feedback.std() * torch.randn(feedback.shape, generator=drawn))


def healthy(training: wtdiag.Training) -> None:
    """Train as usual."""
    for _ in training:
        pass


RUNS: dict[str, tuple[str, Callable[[wtdiag.Training], None]]] = {
    "only the last layer learns": ("bp", frozen),
    "signals of random feedback": ("fa", misled),
    "bp": ("bp", healthy),
    "kp": ("kp", healthy),
}


def run(*seeds: int) -> None:
    """Train the runs, and print for each whether the finding names it, and the counts."""
    named: list[tuple[bool, bool]] = []
    for network, settings in NETWORKS.items():
        for name, (rule, train) in RUNS.items():
            for seed in seeds or SEEDS:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, "run")
                    train(wtdiag.Training(wtdiag.Settings(rule=rule, seed=seed, snapshots=2, **settings), path))
                    arm = wtdiag.baseline(path, **BUDGET).arms["frozen"]
                named.append((train is not healthy, arm.gain_low <= limit("frozen_gain")))
                gain = f"{100 * arm.gain:+.1f} [{100 * arm.gain_low:+.1f}, {100 * arm.gain_high:+.1f}]"
                print(f"{network}  {name}, seed {seed}: {gain} points  {KIND if named[-1][1] else ''}", flush=True)
    right = sum(planted and found for planted, found in named)
    planted = sum(each for each, _ in named)
    print(f'    "{KIND}": {Record(right, sum(found for _, found in named), planted, len(named))},')
