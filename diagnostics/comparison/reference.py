"""The run that another one's accuracy is held against: one that is given, or one by backprop among those at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wtdiag.diagnostics.analysis.accuracy import Accuracy, Reference, accuracy
from wtdiag.diagnostics.comparison.pairing import compared_run, differing, pair
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import rule_name
from wtdiag.probes.records.evaluations import classes_of
from wtdiag.probes.records.rundir import RECORDED
from wtdiag.probes.records.schema import METRICS, Run


def reference(run: Run, against: Run) -> Reference:
    """Return the accuracy of a run that another one is to be held against.

    The two may differ in any setting, which the reference then names, but not in what they were tested on.

    Raises
    ------
    InputError
        If the run ``against`` is not finished, has no accuracy, or has one that means something else.
    """
    if (status := against.config.get("status")) not in ("finished", RECORDED):
        raise InputError(f"against: {against.path} is not finished, but {status}; expected a finished run")
    own, other = accuracy_of(run), accuracy_of(against)
    if math.isnan(other.value):
        raise InputError(f"against: {against.path} has no accuracy; expected a run that logged one")
    if not math.isnan(own.value) and own.on != other.on:
        raise InputError(
            f"against: the accuracy of {against.path} is that on the {other.on} set; expected the {own.on} set, as in "
            f"{run.path}"
        )
    for what, get in (("data", _data), ("classes", lambda each: classes_of(each.config))):
        here, there = get(run), get(against)
        if here is not None and there is not None and here != there:
            raise InputError(f"against: {against.path} has other {what} ({there}); expected {here}, as {run.path} has")
    entry, held = compared_run(run), compared_run(against)
    apart = []
    if entry is not None and held is not None:
        apart = differing([entry.conditions | {"seed": entry.seed}, held.conditions | {"seed": held.seed}])
    name = against.path.resolve().name
    return Reference(name, rule_name(against.config), other.value, other.on, ", ".join(apart))


def references(runs: Sequence[Run]) -> dict[Path, Reference]:
    """Return by path, for each run that has its pair by backprop among them, that pair's accuracy.

    A pair that has no accuracy, or diverged, is left out.
    """
    found: dict[Path, Reference] = {}
    if any(entry.rule == "bp" for entry in map(compared_run, runs) if entry is not None):
        for entry, other in pair(runs, "bp").pairs:
            try:
                found[entry.run.path] = reference(entry.run, other.run)
            except InputError:
                continue
    return found


def accuracy_of(run: Run, held: Reference | None = None) -> Accuracy:
    """Return the accuracy of a run, beside that of the run that it is held against."""
    metrics = run.metrics if (run.path / METRICS).exists() else pd.DataFrame()
    return accuracy(metrics, run.config, held)


def _data(run: Run) -> object:
    settings = run.config.get("settings")
    return settings.get("data") if isinstance(settings, dict) else None
