"""Runs with one planted fault each, and healthy runs: the first finding should name the fault and its layer.

``python -m bench faults`` trains, analyses and diagnoses them on seeds on which no threshold was chosen, and writes the
tables into docs/findings.md. It takes about ten minutes on one core. Expected result: the fault and its layer are named
in at least 11 of 12 runs, and no healthy run has a finding of high severity. The lines that it prints last belong in
diagnostics/findings/thresholds.py.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

import wtdiag
from bench.evidence.page import fill, table
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.diagnostics.findings.kinds.sizes import of_compared, of_others
from wtdiag.diagnostics.findings.thresholds import THRESHOLDS, Record
from wtdiag.probes.records.schema import Run
from wtdiag.trainers import data, models
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.layers import Synaptic

SEEDS = (3, 4, 5)
"""Seeds of the tables. Thresholds were chosen on `CHOSEN`; 0 to 2 showed that silence spreads upwards too."""
CHOSEN = (100, 101)
DEPTH, STEPS, EVERY, BATCH = 6, 230, 10, 64
LR, MOMENTUM, WARMUP = 0.05, 0.9, 23
HEALTHY = ("sa", "wm", "kp", "aa", "ia", "bp", "fa", "usf", "dfa", "frsf")

Plant = Callable[[Synaptic], object]


@dataclass(frozen=True)
class Fault:
    """One fault: the kind of finding that names it, and how it is planted in one layer.

    ``plant`` is applied to the layer before training, ``again`` after each step, and ``once`` after step `STEPS` // 2.
    ``frozen`` leaves the layer's feedback out of the optimiser.
    """

    kind: str
    rule: str = "sa"
    plant: Plant | None = None
    again: Plant | None = None
    once: Plant | None = None
    frozen: bool = False
    batch_norm: bool = True
    feedback_lr: float | None = None


def coefficients(**values: float) -> Plant:
    """Return a fault that gives the layer's rule other coefficients."""
    return lambda layer: setattr(layer, "rule", dataclasses.replace(layer.rule, **values))


def scaled(factor: float) -> Plant:
    """Return a fault that multiplies the feedback by a factor."""
    return lambda layer: layer.feedback.mul_(factor)


def noisy(share: float) -> Plant:
    """Return a fault that adds Gaussian noise to the feedback, in units of the forward weights' standard deviation."""
    return lambda layer: layer.feedback.add_(torch.randn_like(layer.feedback), alpha=share * float(layer.weight.std()))


def random(layer: Synaptic) -> None:
    """Replace the feedback by a fresh random one."""
    layer.feedback.normal_(0.0, float(layer.weight.std()))


def rank_one(layer: Synaptic) -> None:
    """Reduce the feedback to its first singular direction, and keep its norm."""
    u, s, v = torch.linalg.svd(layer.feedback, full_matrices=False)
    layer.feedback.copy_(s.norm() * torch.outer(u[:, 0], v[0]))


def silent(layer: Synaptic) -> None:
    """Hold every unit of the layer below its threshold."""
    layer.bias.fill_(-1e3)


FAULTS = {
    "target ×10": Fault("feedback-too-large", plant=coefficients(self=2.0)),
    "target ×0.1": Fault("feedback-too-small", plant=coefficients(self=0.02)),
    "target −1": Fault("sign-flip", plant=coefficients(self=-0.2)),
    "left out of the optimiser": Fault("frozen-feedback", frozen=True),
    "left out of the optimiser, kp": Fault("frozen-feedback", "kp", frozen=True),
    "rank one after each step": Fault("rank-collapse", again=rank_one),
    "step ×50": Fault("step-too-large", plant=coefficients(self=10.0, decay=10.0)),
    "step ×50, wm": Fault("step-too-large", "wm", plant=coefficients(amp=5.0, decay=5.0)),
    "step ×50, ia by sgd": Fault(
        "step-too-large", "ia", plant=coefficients(amp=2.0, null=0.5, decay=0.125), feedback_lr=1.0
    ),
    "noise in each step": Fault("noisy-feedback", again=noisy(1.0)),
    "fresh random in each step": Fault("noisy-feedback", again=random),
    "step ×0.001": Fault("feedback-too-slow", plant=coefficients(self=2e-4, decay=2e-4)),
    "zero after each step": Fault("feedback-too-small", again=scaled(0.0)),
    "decay ×0.1, wm": Fault("feedback-too-large", "wm", plant=coefficients(decay=0.01)),
    "no amplification, wm": Fault("feedback-too-small", "wm", plant=coefficients(amp=0.0)),
    "×10, fa": Fault("feedback-too-large", "fa", plant=scaled(10.0)),
    "×0.1, fa": Fault("feedback-too-small", "fa", plant=scaled(0.1)),
    "units silent": Fault("signal-below-floor", again=silent, batch_norm=False),
    "NaN": Fault("divergence", once=scaled(math.nan)),
    "W +2 % a step under batch norm": Fault("bn-runaway", again=lambda layer: layer.weight.mul_(1.02)),
}  # fmt: skip


def faulty(fault: Fault, seed: int, path: Path, steps: int = STEPS) -> tuple[str, tuple[Finding, ...]]:
    """Train and diagnose one run with a fault in one layer; return the layer and the findings."""
    name, analysis, run = faulty_run(fault, seed, path, steps)
    return name, diagnose(analysis, run.config, run.metrics)


def healthy(rule: str, seed: int, path: Path, epochs: float = 10) -> tuple[Finding, ...]:
    """Train and diagnose one run by a rule's defaults."""
    analysis, run = healthy_run(rule, seed, path, epochs)
    return diagnose(analysis, run.config, run.metrics)


def faulty_run(fault: Fault, seed: int, path: Path, steps: int = STEPS) -> tuple[str, xr.Dataset, Run]:
    """Train and analyse one run with a fault in one layer; return the layer too."""
    name = f"fc{3 + seed % 3}"
    torch.manual_seed(seed)
    digits = _digits()
    shape, classes = digits.shape, digits.classes
    net = models.build("mlp", classes=classes, shape=shape, depth=DEPTH, batch_norm=fault.batch_norm)
    model = wtdiag.transport_free(net, fault.rule, sample=torch.zeros(2, *shape))
    layer = model.get_submodule(name)
    assert isinstance(layer, Synaptic)
    _do(fault.plant, layer)
    learned = [each.feedback for _, each in synapses(model) if each.rule.learned]
    moved = [each for each in learned if each is not layer.feedback or not fault.frozen]
    forward = [p for p in model.parameters() if p.requires_grad and all(p is not each for each in learned)]
    together = fault.rule == "kp"
    groups = [{"params": forward + (moved if together else []), "momentum": MOMENTUM}]
    feedback_lr = (fault.feedback_lr or layer.rule.recipe.lr) if moved and not together else None
    groups += [{"params": moved}] if feedback_lr else []
    optimizer = torch.optim.SGD(groups, lr=0.0)
    settings = {"momentum": MOMENTUM, "batch_size": BATCH} | ({"feedback_optimizer": "forward"} if together else {})
    probe_batch = digits.train.batch(torch.arange(BATCH))
    with wtdiag.Recorder(model, path, config={"settings": settings}, probe_batch=probe_batch, force=True) as recorder:
        recorder.snapshot(0)
        for step, (x, y) in enumerate(_batches(seed), start=1):
            lr = LR * min(1.0, step / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
            for group, rate in zip(optimizer.param_groups, (lr, feedback_lr), strict=False):
                group["lr"] = rate
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _do(fault.again, layer)
            _do(fault.once if step == steps // 2 // EVERY * EVERY else None, layer)
            recorder.log(step, loss=loss, lr=lr, feedback_lr=lr if together else feedback_lr)
            if step % EVERY == 0 or step in (1, 3):
                recorder.snapshot(step)
            if step == steps:
                break
    run = wtdiag.open_run(path)
    return name, wtdiag.analyze(run, model=model), run


def healthy_run(rule: str, seed: int, path: Path, epochs: float = 10) -> tuple[xr.Dataset, Run]:
    """Train and analyse one run by a rule's defaults."""
    settings = wtdiag.Settings(rule=rule, depth=DEPTH, seed=seed, epochs=epochs, device="cpu")
    for _ in wtdiag.Training(settings, path, dataset=_digits(), force=True):
        pass
    run = wtdiag.open_run(path)
    return wtdiag.analyze(run), run


@torch.no_grad()
def _do(plant: Plant | None, layer: Synaptic) -> None:
    if plant:
        plant(layer)


@cache
def _digits() -> data.Data:
    return data.load("digits")


def _batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        yield from data.batches(_digits().train, BATCH, seed=seed, epoch=epoch)


@dataclass(frozen=True)
class FaultyRun:
    """The fault planted in a run, (kind, layer) or None, and the findings on it."""

    planted: tuple[str, str] | None
    findings: tuple[Finding, ...]

    @property
    def named(self) -> tuple[str, str | None] | None:
        """Kind and layer of the first finding, if it is of severity high or medium."""
        first = self.findings[0]
        return (first.kind, first.layer) if first.severity in ("high", "medium") else None


def records(outcomes: Sequence[FaultyRun]) -> dict[str, Record]:
    """Count for each planted kind how often it was named, and how often it was named correctly."""
    counted = {}
    for kind in dict.fromkeys(outcome.planted[0] for outcome in outcomes if outcome.planted):
        faults = [outcome for outcome in outcomes if outcome.planted and outcome.planted[0] == kind]
        right = sum(outcome.named == outcome.planted for outcome in faults)
        named = sum(outcome.named is not None and outcome.named[0] == kind for outcome in outcomes)
        counted[kind] = Record(right=right, named=named, planted=len(faults), runs=len(outcomes))
    return counted


def thresholds_table(counted: Mapping[str, Record]) -> str:
    """Return the table of thresholds for the page, with the counts of their kinds."""
    rows = []
    for name, each in THRESHOLDS.items():
        row = f"`{name}`", each.kind, f"{each.value:g}", each.units, each.guards.replace("|", "\\|")
        of = counted.get(each.kind)
        shares = (f"{of.precision:.2g} ({of.right} of {of.named})", f"{of.recall:.2g}", of.runs) if of else ("", "", "")
        rows.append((*row, *shares))
    return table(["threshold", "kind", "value", "units", "what lies beyond it", "precision", "recall", "runs"], rows)


SIZES = {  # thresholds of feedback's size: the measure, whether relative to the others' median, and the faulty side
    "norm_ratio_high": ("norm_ratio", False, 1),
    "norm_ratio_excess": ("norm_ratio", True, 1),
    "gain_high": ("predicted_gain", False, 1),
    "gain_excess": ("predicted_gain", True, 1),
    "norm_ratio_low": ("norm_ratio", False, -1),
    "norm_ratio_deficit": ("norm_ratio", True, -1),
}


def sizes_table(cases: Iterable[tuple[str, str, xr.Dataset]]) -> str:
    """Return a table of the most extreme healthy and the least extreme faulty layer for each threshold of `SIZES`.

    A case is the kind of its fault and the faulty layer, both "" in a healthy run, and its analysis. Like the
    detectors, this looks for sizes that are too large in all snapshots, and for those that are too small in the last.
    """
    reached: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SIZES}
    for kind, layer, analysis in cases:
        view = View(analysis, {}, pd.DataFrame())
        for name, (measure, relative, sign) in SIZES.items():
            sizes = of_compared(view, measure)
            sizes = sizes / of_others(sizes) if relative else sizes
            for here, column in zip(view.layers, sizes.T, strict=True):
                finite = column[np.isfinite(column)]
                if len(finite) and not kind:
                    reached[name][0].append(finite.max() if sign > 0 else finite[-1])
                elif len(finite) and here == layer and kind == THRESHOLDS[name].kind:
                    reached[name][1].append(finite.max() if sign > 0 else finite[-1])
    rows = []
    for name, (sound, bad) in reached.items():
        high = SIZES[name][2] > 0
        ends = (max(sound), min(bad)) if high else (min(sound), max(bad))
        rows.append((f"`{name}`", f"{ends[0]:.3g}", f"{THRESHOLDS[name].value:g}", f"{ends[1]:.3g}"))
    return table(["threshold", "most extreme healthy layer", "value", "least extreme faulty layer"], rows)


def run_sizes() -> None:
    """Train and analyse the runs on which the thresholds of feedback's size were chosen, and write their table."""
    kinds = {THRESHOLDS[name].kind for name in SIZES}
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        for seed in CHOSEN:
            for fault in (fault for fault in FAULTS.values() if fault.kind in kinds):
                cases.append((fault.kind, *faulty_run(fault, seed, path)[:2]))
        cases += [("", "", healthy_run(rule, CHOSEN[0], path)[0]) for rule in HEALTHY]
    fill("findings.md", "sizes", shown := sizes_table(cases))
    print(shown)


def run(seeds: Sequence[int] = SEEDS) -> None:
    """Train and diagnose all runs, and print and write the tables."""
    outcomes, faults, fine = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        for name, fault in FAULTS.items():
            layers, diagnosed = zip(*(faulty(fault, seed, path) for seed in seeds), strict=True)
            these = [FaultyRun((fault.kind, layer), each) for layer, each in zip(layers, diagnosed, strict=True)]
            named = sum(each.named == each.planted for each in these)
            instead = [" ".join(map(str, each.named or ["nothing"])) for each in these if each.named != each.planted]
            faults.append((name, fault.rule, fault.kind, f"{named} of {len(seeds)}", ", ".join(instead)))
            print(*faults[-1], sep="  ", flush=True)
            outcomes += these
        for rule in HEALTHY:
            these = [FaultyRun(None, healthy(rule, seed, path)) for seed in seeds]
            first = [" ".join(map(str, (*each.named, each.findings[0].severity))) for each in these if each.named]
            high = sum(each.findings[0].severity == "high" for each in these)
            fine.append((f"`{rule}`", f"{high} of {len(seeds)}", ", ".join(first)))
            print(*fine[-1], sep="  ", flush=True)
            outcomes += these
    planted = [each for each in outcomes if each.planted]
    total = f"{sum(each.named == each.planted for each in planted)} of {len(planted)}"
    heads = ["fault in one layer", "rule", "kind", f"named: {total}", "instead"]
    fill("findings.md", "planted faults", table(heads, faults))
    fill("findings.md", "healthy runs", table(["rule", "with a finding of high severity", "first finding"], fine))
    fill("findings.md", "thresholds", thresholds_table(records(outcomes)))
    print(f"named {total}")
    for kind, record in records(outcomes).items():
        print(f'    "{kind}": {record},')
