"""Figures of a grid: accuracy, gap to backpropagation and angles, by method and over each factor with levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.reports.document.content import Figure, Table
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.figures.style import capital, fixed, short
from wtdiag.reports.study.levels import ACCURACY, ERROR, GAP, WEIGHT, GridVariable, Levels, conditions, factors
from wtdiag.reports.study.shared import Estimate, Methods, estimate, level, slug, tidy, words

_MOST = 4  # the most combinations of the other factors' levels at which one factor is drawn
_ONE = "one seed each: no interval"
_SEVERAL = "means over seeds with their 95 % interval"
_NOTED = 4  # the most methods that a sentence names
_PARTS = ((ACCURACY, GAP), (WEIGHT, ERROR))


def over_factors(grid: xr.Dataset, methods: Methods) -> Iterator[Figure]:
    """Draw accuracy, gap and angles over each factor, or by method if there is no factor."""
    if not factors(grid):
        yield from _by_method(grid, methods)
    for factor in factors(grid):
        combinations = conditions(grid, factor)
        combinations = [here for here in combinations if _levels(grid.sel(here), factor) > 1]
        for here in (combinations[i] for i in spread(len(combinations), _MOST)):
            yield from _over(grid.sel(here), factor, here, methods)


def _levels(grid: xr.Dataset, factor: str) -> int:
    """Count the levels of a factor at which there is a cell."""
    there = grid["status"] != "absent"
    return int(there.any([dim for dim in there.dims if dim != factor]).sum())


def _over(grid: xr.Dataset, factor: str, here: Levels, methods: Methods) -> Iterator[Figure]:
    levels = grid[factor].values
    place = level(here)
    at = f" at {place}" if place else ""
    for measures in _PARTS:
        panels, rows, said, shown = [], [], [], []
        for measure in measures:
            estimates = _estimates(grid, measure, factor, methods)
            if not estimates:
                continue
            shown.append(measure)
            panels.append(_panel(estimates, measure, factor, levels, methods))
            said.append(_said(estimates, measure, factor, levels))
            rows += [
                (measure.said, name, tidy(reached), *_numbers(value))
                for name, each in estimates.items()
                for reached, value in zip(levels, each, strict=True)
                if value.n
            ]
        if not panels:
            continue
        many = max(int(row[-1]) for row in rows) > 1
        titles = capital(listed([measure.said for measure in shown]))
        yield Figure(
            panels=tuple(panels),
            caption=f"{titles} over {words(factor)}{at}, {_SEVERAL if many else _ONE}. {said[-1]}",
            alt=" ".join(said),
            data=Table(
                "The numbers drawn.",
                ("measure", "rule", words(factor), "mean", "from", "to", "seeds"),
                tuple(rows),
                labels=3,
            ),
            name=f"{shown[0].name}-over{slug(factor)}{slug(place)}",
            measures=tuple(measure.name for measure in shown),
            subjects=methods.subjects,
        )


def _estimates(grid: xr.Dataset, measure: GridVariable, factor: str, methods: Methods) -> dict[str, list[Estimate]]:
    """Return the estimates of each method at every level; methods without an estimate are left out."""
    if measure.name not in grid:
        return {}
    values = grid[measure.name].transpose("rule", factor, ...)
    estimates = {
        name: [estimate(each, measure.bounds) for each in values.sel(rule=name).values] for name in methods.among(grid)
    }
    return {
        name: each
        for name, each in estimates.items()
        if any(at.n for at in each) and not (_exact(name, measure) and all(at.mean == 0 for at in each if at.n))
    }


def _exact(name: str, measure: GridVariable) -> bool:
    """Return whether this is an angle of backpropagation, which is zero and says nothing."""
    return name == "bp" and measure in (WEIGHT, ERROR)


def _panel(
    estimates: Mapping[str, Sequence[Estimate]], measure: GridVariable, factor: str, levels: Any, methods: Methods
) -> Any:
    numeric = np.issubdtype(np.asarray(levels).dtype, np.number)
    if not numeric:
        return sized.groups(
            {name: [(at.mean, at.low, at.high) for at in each] for name, each in estimates.items()},
            [methods.look(name) for name in estimates],
            [methods.gid(name) for name in estimates],
            names=[tidy(each) for each in levels],
            title=measure.title,
            x_label=words(factor),
        )
    lines = []
    for name, each in estimates.items():
        kept = [i for i, at in enumerate(each) if at.n]
        mean, low, high = ([getattr(each[i], part) for i in kept] for part in ("mean", "low", "high"))
        places = np.asarray(levels, dtype=float)[kept]
        band = (low, high) if np.isfinite(low).any() else (None, None)
        lines.append(
            sized.Curve(name, methods.look(name), places, mean, gid=methods.gid(name), low=band[0], high=band[1])
        )
    return sized.levels(lines, title=measure.title, x_label=words(factor))


def _by_method(grid: xr.Dataset, methods: Methods) -> Iterator[Figure]:
    """Draw one row for each method: the mean, interval and seeds of accuracy and gap, then those of the angles."""
    for measures in _PARTS:
        panels, rows, said, shown = [], [], [], []
        for measure in measures:
            if measure.name not in grid:
                continue
            values = {name: grid[measure.name].sel(rule=name).values.ravel() for name in methods.among(grid)}
            estimates = {
                name: each
                for name, each in ((name, estimate(each, measure.bounds)) for name, each in values.items())
                if each.n
            }
            estimates = {name: at for name, at in estimates.items() if not (_exact(name, measure) and at.mean == 0)}
            if not estimates:
                continue
            shown.append(measure)
            panels.append(
                sized.dots(
                    {name: (at.mean, at.low, at.high) for name, at in estimates.items()},
                    values,
                    [methods.look(name) for name in estimates],
                    title=measure.title,
                )
            )
            said.append(_ranked({name: at.mean for name, at in estimates.items()}, measure))
            rows += [(measure.said, name, *_numbers(at)) for name, at in estimates.items()]
        if not panels:
            continue
        many = max(int(row[-1]) for row in rows) > 1
        marks = "large marks are means over seeds with their 95 % interval, small marks are single seeds"
        titles = capital(listed([measure.said for measure in shown]))
        yield Figure(
            panels=tuple(panels),
            caption=f"{titles} of each method at the last step; {marks if many else _ONE}. {' '.join(said)}",
            alt=" ".join(said),
            data=Table("The numbers drawn.", ("measure", "rule", "mean", "from", "to", "seeds"), tuple(rows), labels=2),
            name=f"{shown[0].name}-by-method",
            measures=tuple(measure.name for measure in shown),
        )


def _numbers(value: Estimate) -> tuple[str, str, str, str]:
    return fixed(value.mean), fixed(value.low), fixed(value.high), str(value.n)


def _said(estimates: Mapping[str, Sequence[Estimate]], measure: GridVariable, factor: str, levels: Any) -> str:
    """State the change from the first to the last level, starting with the most affected methods."""
    changes = {}
    for name, each in estimates.items():
        kept = [i for i, at in enumerate(each) if at.n]
        changes[name] = (each[kept[0]].mean, each[kept[-1]].mean, levels[kept[0]], levels[kept[-1]])
    order = sorted(changes, key=lambda name: -abs(changes[name][1] - changes[name][0]))
    parts = []
    for name in order[:_NOTED]:
        first, last, start, end = changes[name]
        at = f" ({_brief(start)} to {_brief(end)})" if (start, end) != (levels[0], levels[-1]) else ""
        parts.append(
            f"{short(name)} {fixed(first)} to {fixed(last, suffix=measure.suffix)}{at}"
            if start != end
            else f"{short(name)} {fixed(first, suffix=measure.suffix)} at {_brief(start)}"
        )
    rest = f"; {len(order) - _NOTED} more change less" if len(order) > _NOTED else ""
    return (
        f"{capital(measure.said)} from {words(factor)} {_brief(levels[0])} to {_brief(levels[-1])}: "
        f"{', '.join(parts)}{rest}."
    )


def _brief(level_of: Any) -> str:
    return short(tidy(level_of))


def _ranked(means: Mapping[str, float], measure: GridVariable) -> str:
    """State the largest and the smallest mean."""
    order = sorted(means, key=lambda name: -means[name])
    if len(order) <= _NOTED:
        parts = [f"{short(name)} {fixed(means[name], suffix=measure.suffix)}" for name in order]
        return f"{capital(measure.said)}: {', '.join(parts)}."
    high, low = order[0], order[-1]
    return (
        f"{capital(measure.said)}: highest {short(high)} with {fixed(means[high], suffix=measure.suffix)}, "
        f"lowest {short(low)} with {fixed(means[low], suffix=measure.suffix)}."
    )


def ranking(grid: xr.Dataset) -> str:
    """State the best and the worst method, by the mean over seeds and over the levels at which all have a value."""
    values = grid["accuracy"].transpose("rule", ..., "seed").values
    cells = np.ma.masked_invalid(values.reshape(len(values), -1, values.shape[-1]))
    means = dict(zip(map(str, grid["rule"].values), cells.mean(axis=2).filled(np.nan), strict=True))
    means = {name: each for name, each in means.items() if np.isfinite(each).any()}
    if not means:
        return "No cell has finished."
    common = np.isfinite(list(means.values())).all(axis=0)
    if not common.any():
        return "There is no level at which every method has a finished cell."
    averaged = "test accuracy, averaged over the levels that every method has finished"
    over = ACCURACY._replace(said=averaged) if factors(grid) else ACCURACY
    return _ranked({name: float(each[common].mean()) for name, each in means.items()}, over)
