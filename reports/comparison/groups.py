"""Groups of runs that differ only in their seed: their means, their spread, their gap to backpropagation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.diagnostics.analysis.reading import meaningful
from wtdiag.diagnostics.comparison.pairing import compared_run, method_names, pair
from wtdiag.probes.records.config import settings_with_role
from wtdiag.probes.records.schema import Run
from wtdiag.reports.figures.curves import Curve
from wtdiag.reports.figures.curves import average as join
from wtdiag.reports.figures.style import Look, distinct_looks
from wtdiag.reports.run.sources import Source

_MAY_DIFFER = ("seed", *settings_with_role("location", "recording"))
"""Settings that may differ between runs that are repetitions of one another."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs with the same rule and settings.

    Attributes
    ----------
    name : str
        Their common name.
    runs : tuple of Source
        The runs.
    method : str
        Their rule, and where another group has it with other coefficients, those that set them apart.
    look : Look
        The colour and marker of the method.
    """

    name: str
    runs: tuple[Source, ...]
    method: str
    look: Look


def groups(sources: Sequence[Source]) -> tuple[SeedGroup, ...]:
    """Group the runs that differ only in their seed; a run without a recorded seed is a group of its own."""
    grouped: dict[str, list[Source]] = {}
    for source in sources:
        settings = {key: value for key, value in source.settings.items() if key not in _MAY_DIFFER}
        alone = source.name if "seed" not in source.settings else ""
        key = json.dumps([alone, source.config.get("rule"), settings, source.analysis.sizes["layer"]], sort_keys=True)
        grouped.setdefault(key, []).append(source)
    first = [runs[0] for runs in grouped.values()]
    counted, methods = [source.rule for source in first], _methods(first)
    looks = _looks(dict(zip(methods, counted, strict=True)))
    return tuple(
        SeedGroup(_name(runs, counted), tuple(runs), method, looks[method])
        for runs, method in zip(grouped.values(), methods, strict=True)
    )


def _methods(sources: Sequence[Source]) -> list[str]:
    """Return the names of the methods of runs: the rule, and what sets it apart from the same rule in other runs."""
    entries = [compared_run(opened(source)) for source in sources]
    names = method_names(entry for entry in entries if entry is not None)
    pairs = zip(sources, entries, strict=True)
    return [source.rule if entry is None else names[entry.method] for source, entry in pairs]


def _looks(rules: Mapping[str, str]) -> dict[str, Look]:
    """Return the look of each method, of which the first of a rule has the rule's own."""
    names: dict[str, str] = {}
    for method, rule in rules.items():
        names[method] = method if rule in names.values() else rule
    looks = distinct_looks(list(names.values()))
    return {method: looks[name] for method, name in names.items()}


def average(group: SeedGroup, index: int, series: Callable[[Source], pd.Series[Any]]) -> list[Curve]:
    """Return the curve of a group's mean, with a band of one standard deviation.

    Where the runs have no step in common, and in a group of one run, each run has its own curve; a run without values
    is left out.
    """
    return join(group.method, group.look, [series(run) for run in group.runs], gid=f"run-{index}")


def mean_angle(source: Source) -> pd.Series[Any]:
    """Return the weight angle over training, averaged over the layers that carry error."""
    analysis = source.analysis
    if "weight_angle" not in analysis:
        return pd.Series(dtype=float)
    angle = analysis.weight_angle.transpose("step", "layer").values[:, meaningful(analysis, "weight_angle")]
    return pd.DataFrame(angle, index=analysis.step.values).mean(axis=1).dropna()


def profile(source: Source) -> pd.Series[Any]:
    """Return the error angle at the last snapshot with values, by the layer's number counted from the input."""
    if "error_angle" not in source.analysis:
        return pd.Series(dtype=float)
    angle = source.analysis.error_angle.transpose("step", "layer").values[last_measured(source.analysis)]
    return pd.Series(angle, index=np.arange(1.0, len(angle) + 1)).dropna()


def depth(source: Source) -> int:
    """Return the number of layers."""
    return int(source.analysis.sizes["layer"])


def gaps(sources: Sequence[Source], tested_on: str) -> dict[str, float]:
    """Return the gap in accuracy on the given set, in points, between each run and its paired run by backpropagation.

    The gaps are given by run name; a run without a pair has NaN, see `diagnostics.comparison.pairing.pair`.
    """
    below = dict.fromkeys((source.name for source in sources), float("nan"))
    if any(source.rule == "bp" for source in sources):
        by_path = {str(source.path): source for source in sources}
        for entry, reference in pair(map(opened, sources), "bp").pairs:
            own, other = (by_path[each.name].metric(f"{tested_on}_accuracy") for each in (entry, reference))
            if len(own) and len(other):
                below[by_path[entry.name].name] = 100 * float(other.iloc[-1] - own.iloc[-1])
    return below


def opened(source: Source) -> Run:
    """Return a source as a run."""
    return Run(source.path, source.config)


def _name(runs: Sequence[Source], rules: Sequence[str]) -> str:
    first = runs[0]
    if len(runs) == 1:
        return first.name
    plain = rules.count(first.rule) == 1
    return f"{first.rule if plain else first.name}, {len(runs)} seeds"
