"""Early warning of collapse: the signs at every snapshot of a run, against how the run ended.

``python -m bench early_warning [FOLDER]`` trains runs whose feedback learns by SGD or by Adam, at growing learning
rates of B, and runs at growing learning rates of W, on perceptrons, a convolutional network and ResNet-8, on seeds on
which no threshold was chosen. At each snapshot it looks for every sign, with everything that comes later cut off. It
writes the
tables of docs/early-warning.md, keeps the runs in FOLDER if it is given, and takes about twenty minutes on one core.
Expected result: in each group, the diagnosis catches 90 % of the collapses and raises an alarm in at most 10 % of the
other runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from bench.evidence.page import fill, table
from bench.evidence.planted import NETWORKS, recorded
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.probes.records.schema import Run
from wtdiag.trainers.config.settings import Settings

SEEDS = (6,)
TUNED_ON = (100,)
"""Seeds on which thresholds were chosen."""

_SGD = {"feedback_optimizer": "sgd"}
_GLYPHS = {"epochs": 0.75, "snapshots": 8, "snapshot_every": 8}
NETS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"model": "mlp", "depth": 8, "epochs": 4, "snapshots": 8, "snapshot_every": 8},
    "conv": {**NETWORKS["conv"].settings, **_GLYPHS},
    "resnet8": {**NETWORKS["resnet8"].settings, **_GLYPHS},
}
ON_B_BY_SGD: Mapping[str, Mapping[str, Any]] = {"wm-reg": {}, "ia": _SGD, "aa": _SGD, "sa": {}, "wm": {}}
RATES = (1.0, 4.0)
ON_B_BY_ADAM = {"ia": 0.005, "aa": 0.02}
STRETCHES = (1.0, 30.0, 300.0)
FORWARD = ("sa", "fa", "bp")
FORWARD_RATES = (0.05, 1.0, 10.0)
GROUPS = ("SGD on B", "Adam on B", "forward rate")


@dataclass(frozen=True)
class WatchedCase:
    """One run to watch: its group, network and rule, and the settings that differ from their defaults."""

    group: str
    network: str
    rule: str
    seed: int
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return Settings(rule=self.rule, seed=self.seed, device="cpu", **{**NETS[self.network], **self.changed})

    def __str__(self) -> str:
        changed = " ".join(f"{name}={value:g}" for name, value in self.changed.items() if not isinstance(value, str))
        return f"{self.group}: {self.network} {self.rule} {changed} seed {self.seed}"


def cases(seeds: Collection[int]) -> Iterator[WatchedCase]:
    """Yield all runs to watch."""
    for network, seed in product(NETS, seeds):
        for (rule, changed), rate in product(ON_B_BY_SGD.items(), RATES):
            yield WatchedCase("SGD on B", network, rule, seed, {**changed, "feedback_lr": rate})
        for (rule, lr), stretch in product(ON_B_BY_ADAM.items(), STRETCHES):
            changed = {"feedback_optimizer": "adam", "feedback_lr": lr * stretch}
            yield WatchedCase("Adam on B", network, rule, seed, changed)
        for rule, lr, batch_norm in product(FORWARD, FORWARD_RATES, (True, False) if network == "mlp" else (True,)):
            yield WatchedCase("forward rate", network, rule, seed, {"lr": lr, "batch_norm": batch_norm})


@dataclass(frozen=True)
class Past:
    """The knowledge at a snapshot: the analysis and the metrics up to it, and the run's configuration."""

    analysis: xr.Dataset
    config: Mapping[str, Any]
    metrics: pd.DataFrame

    def now(self, measure: str) -> float:
        """Return the largest value over the layers at this snapshot."""
        return float(np.fmax.reduce(self.analysis[measure].isel(step=-1).values))

    def growth(self, measure: str) -> float:
        """Return the largest growth over the layers since the first snapshot."""
        values = self.analysis[measure]
        return float(np.fmax.reduce((values.isel(step=-1) / values.isel(step=0)).values))

    def findings(self) -> bool:
        """Return whether the diagnosis has a finding of high severity."""
        return any(each.severity == "high" for each in diagnose(self.analysis, self.config, self.metrics))


SIGNS: dict[str, Callable[[Past], bool]] = {
    "**the diagnosis: any finding of high severity**": lambda past: past.findings(),
    "S > 1": lambda past: past.now("step_size_number") > 1,
    "predicted gain > 10": lambda past: past.now("predicted_gain") > 10,
    "norm ratio × 10": lambda past: past.growth("norm_ratio") > 10,
    "spectral norm of B × 3": lambda past: past.growth("feedback_spectral_norm") > 3,
    "lr‖∇W‖/‖W‖ > 1": lambda past: past.now("relative_update") > 1,
    "loss × 1.5": lambda past: len(past.metrics) > 0 and past.metrics.loss.iloc[-1] > 1.5 * past.metrics.loss.iloc[0],
    "weight angle > 80° after 20 steps": lambda past: past.analysis.step[-1] > 20 and past.now("weight_angle") > 80,
}
DIAGNOSIS = next(iter(SIGNS))


@dataclass(frozen=True)
class WatchedRun:
    """How one run went: the step of its collapse, if any, and the step at which each sign appeared, if it did."""

    case: WatchedCase
    collapse: int | None
    accuracy: float
    alarms: Mapping[str, int | None]

    def lead(self, sign: str) -> int | None:
        """Return the number of steps from the sign to the collapse; None if the sign did not come before it."""
        alarm = self.alarms[sign]
        return (
            self.collapse - alarm if self.collapse is not None and alarm is not None and alarm < self.collapse else None
        )


def outcome(case: WatchedCase, run: Run, analysis: xr.Dataset) -> WatchedRun:
    """Look for every sign at every snapshot of a run."""
    metrics, config = run.metrics, run.config
    begun = {key: value for key, value in config.items() if key not in ("status", "diverged")} | {"status": "running"}
    pasts = [
        Past(analysis.isel(step=slice(0, i + 1)), begun, metrics[metrics.step <= step])
        for i, step in enumerate(analysis.step.values)
    ]
    alarms = {
        name: next((int(past.analysis.step[-1]) for past in pasts if sign(past)), None) for name, sign in SIGNS.items()
    }
    view = View(analysis, config, metrics)
    collapse = None if np.isnan(view.collapse) else int(view.collapse)
    tested = metrics.get("test_accuracy", pd.Series(dtype=float)).dropna()
    return WatchedRun(case, collapse, float(tested.iloc[-1]) if len(tested) else 0.0, alarms)


def outcomes(seeds: Collection[int], folder: Path) -> list[WatchedRun]:
    """Return the outcomes of all runs, which are trained in the folder unless they are there."""
    torch.set_num_threads(1)
    return [outcome(case, *recorded(case.settings, folder, f"{case}")) for case in cases(seeds)]


def by_sign(runs: Collection[WatchedRun]) -> str:
    """Return a table of how well each sign did."""
    rows = []
    broken = [run for run in runs if run.collapse is not None]
    others = [run for run in runs if run.collapse is None]
    for sign in SIGNS:
        leads = [lead for run in broken if (lead := run.lead(sign)) is not None]
        false = sum(run.alarms[sign] is not None for run in others)
        rows.append((sign, f"{len(leads)}/{len(broken)}", f"{false}/{len(others)}", median(leads) if leads else "–"))
    return table(("sign", "collapses caught", "false alarms", "median lead (steps)"), rows)


def by_group(runs: Collection[WatchedRun]) -> str:
    """Return a table of how well the diagnosis did in each group and on each network."""
    rows = []
    for group, network in product(GROUPS, ("all", *NETS)):
        mine = [run for run in runs if run.case.group == group and network in ("all", run.case.network)]
        broken = [run for run in mine if run.collapse is not None]
        leads = [lead for run in broken if (lead := run.lead(DIAGNOSIS)) is not None]
        false = sum(run.alarms[DIAGNOSIS] is not None for run in mine if run.collapse is None)
        when = f"{median(run.collapse for run in broken if run.collapse is not None):.0f}" if broken else "–"
        lead = f"{median(leads):.0f}" if leads else "–"
        caught, alarms = f"{len(leads)}/{len(broken)}", f"{false}/{len(mine) - len(broken)}"
        rows.append((f"**{group}**" if network == "all" else group, network, len(mine), when, caught, lead, alarms))
    heads = ("group", "network", "runs", "median step of collapse", "caught", "median lead (steps)", "false alarms")
    return table(heads, rows)


def missed(runs: Collection[WatchedRun]) -> list[str]:
    """Return a line on each collapse without an alarm, and on each alarm without a collapse."""
    lines = []
    for each in runs:
        alarm = each.alarms[DIAGNOSIS]
        if (each.lead(DIAGNOSIS) is None) if each.collapse is not None else alarm is not None:
            lines.append(f"{each.case}: collapse {each.collapse}, alarm {alarm}, accuracy {each.accuracy:.2f}")
    return lines


def run(folder: str = "", seeds: Collection[int] = SEEDS) -> None:
    """Run all cases, print the tables, and write them into the documentation."""
    with tempfile.TemporaryDirectory() as aside:
        runs = outcomes(seeds, Path(folder or aside))
    for name, text in (("signs", by_sign(runs)), ("groups", by_group(runs))):
        print(text, end="\n\n")
        if seeds is SEEDS:
            fill("early-warning.md", name, text)
    print("missed or false:", *missed(runs), sep="\n")
