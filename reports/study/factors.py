"""What a grid shows: accuracy, gap to backpropagation and angles by method, and over each factor that has levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from wtdiag.reports.document.content import Figure, Table
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.figures.style import capital, fixed, short
from wtdiag.reports.study.levels import Levels, conditions, factors
from wtdiag.reports.study.shared import Estimate, Methods, estimate, level, listed, slug, tidy, words

_MOST = 4  # combinations of other factors' levels that one factor is drawn at
_ONE = "one seed each: no interval"
_SEVERAL = "means over seeds with their 95 % bootstrap interval"
_NOTED = 4  # methods that a sentence names


class GridVariable(NamedTuple):
    """A variable of the prepared grid, as figures title it and as sentences name it."""

    name: str
    title: str
    said: str
    suffix: str


ACCURACY = GridVariable("accuracy", "Test accuracy (%)", "test accuracy", "\N{NO-BREAK SPACE}%")
GAP = GridVariable("gap", "Gap to backpropagation (points)", "gap to backpropagation", " points")
WEIGHT = GridVariable("weight_angle", "Weight angle (°)", "weight angle", "°")
ERROR = GridVariable("error_angle", "Error angle, first layer (°)", "error angle", "°")
_PARTS = ((ACCURACY, GAP), (WEIGHT, ERROR))


def over_factors(grid: xr.Dataset, methods: Methods) -> Iterator[Figure]:
    """Draw accuracy, gap and angles over each factor; without any, by method."""
    if not factors(grid):
        yield from _by_method(grid, methods)
    for factor in factors(grid):
        every = conditions(grid, factor)
        every = [here for here in every if _levels(grid.sel(here), factor) > 1]
        for here in (every[i] for i in spread(len(every), _MOST)):
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
            found = _estimates(grid, measure, factor, methods)
            if not found:
                continue
            shown.append(measure)
            panels.append(_panel(found, measure, factor, levels, methods))
            said.append(_said(found, measure, factor, levels))
            rows += [
                (measure.said, name, tidy(reached), *_numbers(value))
                for name, each in found.items()
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
    """By method its estimate at each level; methods without any are left out."""
    if measure.name not in grid:
        return {}
    values = grid[measure.name].transpose("rule", factor, ...)
    found = {name: [estimate(each) for each in values.sel(rule=name).values] for name in methods.among(grid)}
    return {
        name: each
        for name, each in found.items()
        if any(at.n for at in each) and not (_exact(name, measure) and all(at.mean == 0 for at in each if at.n))
    }


def _exact(name: str, measure: GridVariable) -> bool:
    """Whether it is an angle of backpropagation, which is zero and tells nothing."""
    return name == "bp" and measure in (WEIGHT, ERROR)


def _panel(
    found: Mapping[str, Sequence[Estimate]], measure: GridVariable, factor: str, levels: Any, methods: Methods
) -> Any:
    numeric = np.issubdtype(np.asarray(levels).dtype, np.number)
    if not numeric:
        return sized.groups(
            {name: [(at.mean, at.low, at.high) for at in each] for name, each in found.items()},
            [methods.look(name) for name in found],
            [methods.gid(name) for name in found],
            names=[tidy(each) for each in levels],
            title=measure.title,
            x_label=words(factor),
        )
    lines = []
    for name, each in found.items():
        kept = [i for i, at in enumerate(each) if at.n]
        mean, low, high = ([getattr(each[i], part) for i in kept] for part in ("mean", "low", "high"))
        places = np.asarray(levels, dtype=float)[kept]
        band = (low, high) if np.isfinite(low).any() else (None, None)
        lines.append(
            sized.Curve(name, methods.look(name), places, mean, gid=methods.gid(name), low=band[0], high=band[1])
        )
    return sized.levels(lines, title=measure.title, x_label=words(factor))


def _by_method(grid: xr.Dataset, methods: Methods) -> Iterator[Figure]:
    """Draw one row for each method: mean, interval and seeds of accuracy and gap, then of the angles."""
    for measures in _PARTS:
        panels, rows, said, shown = [], [], [], []
        for measure in measures:
            if measure.name not in grid:
                continue
            values = {name: grid[measure.name].sel(rule=name).values.ravel() for name in methods.among(grid)}
            found = {name: each for name, each in ((name, estimate(each)) for name, each in values.items()) if each.n}
            found = {name: at for name, at in found.items() if not (_exact(name, measure) and at.mean == 0)}
            if not found:
                continue
            shown.append(measure)
            panels.append(
                sized.dots(
                    {name: (at.mean, at.low, at.high) for name, at in found.items()},
                    values,
                    [methods.look(name) for name in found],
                    title=measure.title,
                )
            )
            said.append(_ranked({name: at.mean for name, at in found.items()}, measure))
            rows += [(measure.said, name, *_numbers(at)) for name, at in found.items()]
        if not panels:
            continue
        many = max(int(row[-1]) for row in rows) > 1
        marks = "large marks are means over seeds with their 95 % bootstrap interval, small ones single seeds"
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


def _said(found: Mapping[str, Sequence[Estimate]], measure: GridVariable, factor: str, levels: Any) -> str:
    """State what happens from the first to the last level, the most affected methods first."""
    changes = {}
    for name, each in found.items():
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
    """State the largest and smallest values."""
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
    """State the best and the worst method: mean over seeds, then over the levels at which all have a value."""
    values = grid["accuracy"].transpose("rule", ..., "seed").values
    cells = np.ma.masked_invalid(values.reshape(len(values), -1, values.shape[-1]))
    means = dict(zip(map(str, grid["rule"].values), cells.mean(axis=2).filled(np.nan), strict=True))
    means = {name: each for name, each in means.items() if np.isfinite(each).any()}
    if not means:
        return "No cell has finished."
    common = np.isfinite(list(means.values())).all(axis=0)
    if not common.any():
        return "At no level all methods have a cell that finished."
    over = ACCURACY._replace(said="test accuracy, mean over the levels that all have") if factors(grid) else ACCURACY
    return _ranked({name: float(each[common].mean()) for name, each in means.items()}, over)
