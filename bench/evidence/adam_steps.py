"""Theory of Adam on B, against simulations and against what becomes of trainings at many learning rates of B.

``python -m bench adam`` takes about four minutes on one core and writes its tables to docs/theory.md. Expected result:
the angles that noise adds within 20 %; at least nine of ten trainings of the `mlp` that lose five points of accuracy to
steps that are too large are named so by the diagnosis, and at most one of ten of those that lose less. On the
convolutional net it misses most of them.

Thresholds were chosen on the seeds `CHOSEN`; ``python -m bench.evidence.adam_steps`` prints the table for them.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wtdiag
from bench.evidence.page import fill, table
from bench.evidence.theory import BATCH, Prediction, SimulatedCase
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.probes import Quantities
from wtdiag.trainers.config.settings import Settings

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"model": "mlp", "data": "digits", "depth": 6, "epochs": 8},
    "conv": {"model": "conv", "data": "glyphs", "depth": 4, "width": 8, "epochs": 3, "lr": 0.1, "probe_size": 32},
}
DEFAULT = {"ia": 0.005, "aa": 0.02}
FACTORS = {"ia": (0.02, 1.0, 4.0, 32.0, 64.0, 128.0), "aa": (0.02, 1.0, 8.0, 24.0, 32.0, 64.0)}
"""Learning rates of B, as multiples of the rule's default."""
SEEDS = {"mlp": (0, 1, 2), "conv": (0,)}
CHOSEN = {"mlp": (100, 101, 102), "conv": (100, 101)}
DEGRADED = 5.0
"""Points of accuracy that a degraded training loses against the best rate of the same network, rule and seed."""
NOISE = {"ia": (0.002, 0.01, 0.05), "wm-reg": (0.01, 0.1)}
"""Learning rates at which the angle that noise adds is simulated."""
LARGE, SMALL = "adam-step-too-large", "adam-step-too-small"


@dataclass(frozen=True)
class AdamRun:
    """One training: its settings, the relative step of B early on, its accuracy, and the kinds of finding on it."""

    network: str
    rule: str
    factor: float
    seed: int
    step: float
    accuracy: float
    found: frozenset[str]


def trained(network: str, rule: str, factor: float, seed: int) -> AdamRun:
    """Train, analyse and diagnose one run."""
    rate = factor * DEFAULT[rule]
    settings = Settings(rule=rule, seed=seed, feedback_lr=rate, snapshots=6, device="cpu", **NETWORKS[network])
    with tempfile.TemporaryDirectory() as folder:
        training = wtdiag.Training(settings, Path(folder, "run"))
        for _ in training:
            pass
        run = wtdiag.open_run(Path(folder, "run"))
        analysis = wtdiag.analyze(run, ["relative_step", "travel_time", "rest_distance"])
        found = frozenset(each.kind for each in diagnose(analysis, run.config, run.metrics))
    early = analysis.isel(step=int(np.argmax(analysis.step.values >= 3)), layer=analysis.carries_error.values)
    step = float(early.relative_step.max())
    return AdamRun(network, rule, factor, seed, step, training.progress.test_accuracy, found)


def runs(seeds: Mapping[str, Collection[int]]) -> Iterator[AdamRun]:
    """Train all runs, one after the other."""
    for network in NETWORKS:
        for seed, rule in itertools.product(seeds[network], DEFAULT):
            for factor in FACTORS[rule]:
                yield trained(network, rule, factor, seed)


def lost(one: AdamRun, made: Collection[AdamRun]) -> float:
    """Return the points of accuracy that a training loses against the best rate of its network, rule and seed."""
    alike = [each for each in made if (each.network, each.rule, each.seed) == (one.network, one.rule, one.seed)]
    return 100 * (max(each.accuracy for each in alike) - one.accuracy)


def by_rate(made: Collection[AdamRun]) -> str:
    """Return a table with a row for each learning rate."""
    rows = []
    for network, rule in itertools.product(NETWORKS, DEFAULT):
        for factor in FACTORS[rule]:
            these = [each for each in made if (each.network, each.rule, each.factor) == (network, rule, factor)]
            step = f"{np.median([each.step for each in these]):.2g}"
            points = f"{np.mean([lost(each, made) for each in these]):.1f}"
            named = (f"{sum(kind in each.found for each in these)} of {len(these)}" for kind in (LARGE, SMALL))
            rows.append((network, f"`{rule}`", f"{factor * DEFAULT[rule]:g}", step, points, *named))
    heads = ("network", "rule", "rate of B", "relative step", "points lost", "named too large", "named too small")
    return table(heads, rows)


def counts(made: Collection[AdamRun]) -> str:
    """Return a table of how often each finding was right; rates below the default test small steps, others large."""
    rows = []
    for network, (kind, small) in itertools.product(NETWORKS, ((LARGE, False), (SMALL, True))):
        these = [each for each in made if each.network == network and (each.factor < 1) == small]
        bad = [each for each in these if lost(each, made) >= DEGRADED]
        caught = f"{sum(kind in each.found for each in bad)} of {len(bad)}"
        fine = [each for each in made if each.network == network and lost(each, made) < DEGRADED]
        rows.append((network, kind, caught, f"{sum(kind in each.found for each in fine)} of {len(fine)}"))
    heads = ("network", "finding", f"named, of those that lost {DEGRADED:g} points", "named, of those that did not")
    return table(heads, rows)


def noise_angle(case: SimulatedCase, lr: float, steps: int = 1000) -> Prediction:
    """Train the feedback from rest by PyTorch's Adam on random batches, and measure its angle to the rest."""
    given = {"lr": lr, "optimizer": "adam", "batch_size": BATCH}
    law = dataclasses.replace(case.signals["law"], **given)
    point = Quantities(forward=case.weight.numpy(), feedback=case.start.numpy(), law=law)["rest"].point
    layer = copy.deepcopy(case.layer)
    layer.feedback.data.copy_(torch.from_numpy(point))
    layer.weight.requires_grad_(False)
    adam = torch.optim.Adam([layer.feedback], lr=lr)
    generator = torch.Generator().manual_seed(1)
    kept = []
    for step in range(steps):
        adam.zero_grad()
        layer(case.x[torch.randint(len(case.x), (BATCH,), generator=generator)]).sum().backward()
        adam.step()
        if step >= steps // 2 and step % 5 == 0:
            kept.append(float(np.linalg.norm(layer.feedback.detach().numpy() - point) / np.linalg.norm(point)) ** 2)
    simulated = math.degrees(math.atan(math.sqrt(np.mean(kept))))
    predicted = case.predict("predicted_noise_angle", **given)
    return Prediction("noise angle", case.rule, case.model, f"Adam, rate {lr:g}", predicted, simulated)


def noise_table() -> str:
    """Return a table of the angles that noise adds under Adam, predicted and simulated."""
    rows = []
    for model, rule in itertools.product(("mlp", "conv"), NOISE):
        case = SimulatedCase(model, rule)
        for lr in NOISE[rule]:
            made = noise_angle(case, lr)
            known = not math.isnan(made.predicted)
            predicted = f"{made.predicted:.1f}°" if known else "undefined"
            difference = f"{made.simulated / made.predicted - 1:+.0%}" if known else ""
            rows.append((f"`{rule}`", model, f"{lr:g}", predicted, f"{made.simulated:.1f}°", difference))
    return table(("rule", "layer", "rate of B", "predicted", "simulated", "difference"), rows)


def run(seeds: Mapping[str, Collection[int]] = SEEDS) -> None:
    """Print all tables, and write them to docs/theory.md."""
    made = []
    for each in runs(seeds):
        made.append(each)
        print(each.network, each.rule, f"×{each.factor:g}", each.seed, f"{each.step:.3g}", f"{each.accuracy:.3f}",
              *sorted(each.found), flush=True)  # fmt: skip
    for name, text in (("adam rates", by_rate(made)), ("adam findings", counts(made)), ("adam noise", noise_table())):
        print(text, end="\n\n")
        if seeds is SEEDS:
            fill("theory.md", name, text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(CHOSEN)
