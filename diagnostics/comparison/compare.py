"""Comparison of runs with a reference, pair by pair: the cost of a rule in accuracy, loss, angles and over depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.outcome import angles
from wtdiag.diagnostics.comparison.pairing import ComparedRun, condition_names, key, method_names, pair
from wtdiag.probes.records.evaluations import SETS, classes_of, evaluated_on, evaluations
from wtdiag.probes.records.schema import ANALYSIS, METRICS, Run

UNITS = {
    **{f"{on}_{name}": "1" for on in SETS for name in ("accuracy", "loss")},
    "weight_angle": "degree",
    "error_angle": "degree",
    "depth_gap": "1",
}
"""Measures that are compared, and their units."""

COLUMNS = (
    "conditions", "rule", "reference", "measure", "units", "n", "diverged",
    "mean", "reference_mean", "difference", "low", "high",
)  # fmt: skip


class _PairedMeasure(NamedTuple):
    """A measure of two paired runs, with the row of the table that it belongs to."""

    conditions: str
    rule: str
    reference: str
    measure: str
    own: float
    other: float
    diverged: bool


def compare(runs: Iterable[Run], reference: str | None = None) -> pd.DataFrame:
    """Compare runs with those of a reference rule that have the same seed, model, data and other settings.

    The rules' coefficients, the optimisers of their feedback, and the machines of the runs may differ.

    - ``test_accuracy``, ``test_loss``: values of the last evaluation, not of the best. A run that diverged answers at
      chance: accuracy 1 / classes, loss log(classes). Leaving it out would flatter its rule. Runs that held out a part
      of their training examples have ``validation_accuracy`` and ``validation_loss`` instead.
    - ``weight_angle``: mean over the layers that carry error; ``error_angle``: that of the first layer. Both are those
      of the last snapshot that has them, if the run is analysed.
    - ``depth_gap``: accuracy at the greatest depth minus that at the least, if paired runs differ in depth.

    Parameters
    ----------
    runs
        Runs that `probes.records.schema.open_run` returns; each finished or diverged.
    reference
        Rule that the others are compared with; default: bp if there is a run of it, else that of the first run.

    Returns
    -------
    DataFrame
        A row for each combination of conditions, rule and measure. Each row is taken over ``n`` pairs of runs, of which
        ``diverged`` hold a run that diverged. It holds the ``mean`` of the rule, the ``reference_mean``, their
        ``difference``, and from ``low`` to ``high`` the 95 % interval of the difference (`intervals.of_mean`). A single
        pair has no interval, so NaN stands there. ``.attrs["unpaired"]`` gives, for each run that is in no pair, the
        reason.

    Raises
    ------
    InputError
        If no run has the reference rule, or a run's files cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> own_loop = Run(Path("runs/mine"), {"status": "finished"})
    >>> compare([own_loop]).attrs["unpaired"]
    {'runs/mine': 'has no settings with a seed in its config.json'}
    """
    paired = pair(runs, reference)
    entries = {entry.name: entry for both in paired.pairs for entry in both}
    values = {name: _measured(entry) for name, entry in entries.items()}
    names = method_names(entries.values())
    conditions = condition_names(entry.conditions for entry in entries.values())
    cases = []
    for entry, other in paired.pairs:
        head = conditions[key(entry.conditions)], names[entry.method], names[other.method]
        for measure in values[entry.name]:
            pair_values = values[entry.name][measure], values[other.name].get(measure, math.nan)
            cases.append(_PairedMeasure(*head, measure, *pair_values, entry.diverged or other.diverged))
    cases += _over_depth(paired.pairs, values, names)
    rows: dict[tuple[str, ...], list[_PairedMeasure]] = {}
    for case in cases:
        if math.isfinite(case.own) and math.isfinite(case.other):
            rows.setdefault(case[:4], []).append(case)
    table = ComparedRules([_row(some) for some in rows.values()], columns=list(COLUMNS))
    empty = [name for name, measured in values.items() if not any(map(math.isfinite, measured.values()))]
    table.attrs["unpaired"] = paired.unpaired | dict.fromkeys(empty, "has neither an accuracy nor an analysis")
    return table


class ComparedRules(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """A comparison as `compare` returns it; a notebook shows it as the command line does."""

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame  # a part of it is an ordinary table

    def _repr_html_(self) -> str:
        tables = []
        for (conditions, reference), rows in self.groupby(["conditions", "reference"], sort=False):
            interval = [
                "–" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
                for low, high in zip(rows["low"], rows["high"], strict=True)
            ]
            shown = pd.DataFrame(rows)[["rule", "measure", "mean", "reference_mean", "difference"]]
            shown = shown.assign(**{"95 % interval": interval, "n": rows["n"]}).rename(
                columns={"reference_mean": reference}
            )
            tables.append(f"<b>{escape(conditions)}; reference: {escape(reference)}</b>")
            tables.append(shown.to_html(index=False, float_format="{:.4g}".format, border=0))
        tables += [
            f"<div>{escape(run)} is not compared: {escape(reason)}</div>"
            for run, reason in self.attrs.get("unpaired", {}).items()
        ]
        return "".join(tables)


def _measured(entry: ComparedRun) -> dict[str, float]:
    """Return the measures of a run that are compared, NaN for those that it lacks."""
    run = entry.run
    metrics = run.metrics if (run.path / METRICS).exists() else pd.DataFrame()
    on = evaluated_on(metrics, run.config)
    values = dict.fromkeys((f"{on}_accuracy", f"{on}_loss", "weight_angle", "error_angle"), math.nan)
    if entry.diverged:
        if classes := classes_of(run.config):
            values |= {f"{on}_accuracy": 1 / classes, f"{on}_loss": math.log(classes)}
    else:
        for name in ("accuracy", "loss"):
            if len(logged := evaluations(metrics, run.config, name)):
                values[f"{on}_{name}"] = float(logged.iloc[-1])
    if (run.path / ANALYSIS).exists():
        values |= angles(run.path)
    return values


def _over_depth(
    pairs: Iterable[tuple[ComparedRun, ComparedRun]],
    values: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str],
) -> list[_PairedMeasure]:
    """Return the change in accuracy from the least depth to the greatest, for runs that differ only in depth."""
    families: dict[tuple[str, str, str], list[tuple[ComparedRun, ComparedRun]]] = {}
    for entry, other in pairs:
        if isinstance(entry.conditions.get("depth"), int):
            families.setdefault((key(_but_depth(entry)), entry.method, other.method), []).append((entry, other))
    conditions = condition_names(_but_depth(family[0][0]) for family in families.values())
    cases = []
    for (group, method, reference), family in families.items():
        depths = [entry.conditions["depth"] for entry, _ in family]
        least, most = min(depths), max(depths)
        by_depth = {(entry.conditions["depth"], key(entry.seed)): (entry, other) for entry, other in family}
        label = f"{conditions[group]}, depth {least} to {most}"
        for (depth, seed), deep in by_depth.items():
            shallow = by_depth.get((least, seed))
            if least < most == depth and shallow is not None:
                gap, reference_gap = (
                    _accuracy(values[after.name]) - _accuracy(values[before.name])
                    for after, before in zip(deep, shallow, strict=True)
                )
                diverged = any(entry.diverged for entry in (*deep, *shallow))
                cases.append(
                    _PairedMeasure(label, names[method], names[reference], "depth_gap", gap, reference_gap, diverged)
                )
    return cases


def _accuracy(values: Mapping[str, float]) -> float:
    return next((values[name] for on in SETS if (name := f"{on}_accuracy") in values), math.nan)


def _but_depth(entry: ComparedRun) -> dict[str, Any]:
    return {name: value for name, value in entry.conditions.items() if name != "depth"}


def _row(cases: list[_PairedMeasure]) -> tuple[Any, ...]:
    """Return a row of the table, as `COLUMNS` says."""
    own, other = np.array([(case.own, case.other) for case in cases]).T
    differences = own - other
    diverged = sum(case.diverged for case in cases)
    means = own.mean(), other.mean(), differences.mean()
    return *cases[0][:4], UNITS[cases[0].measure], len(cases), diverged, *means, *intervals.of_mean(differences)
