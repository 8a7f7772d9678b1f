"""Tables of a grid: its factors, its cells averaged over seeds, and the settings that tuning found."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.reports.document.content import Table
from wtdiag.reports.figures.style import fixed
from wtdiag.reports.study.shared import Methods, estimate, tidy, without_blanks, words

Levels = Mapping[str, Any]


class GridVariable(NamedTuple):
    """A variable of the prepared grid, with its title in figures, its name in sentences, its unit and its range."""

    name: str
    title: str
    said: str
    suffix: str
    bounds: tuple[float, float]


ACCURACY = GridVariable("accuracy", "Test accuracy (%)", "test accuracy", "\N{NO-BREAK SPACE}%", (0, 100))
GAP = GridVariable("gap", "Gap to backpropagation (points)", "gap to backpropagation", " points", (-100, 100))
WEIGHT = GridVariable("weight_angle", "Weight angle (°)", "weight angle", "°", (0, 180))
ERROR = GridVariable("error_angle", "Error angle, first layer (°)", "error angle", "°", (0, 180))


def prepared(grid: xr.Dataset) -> xr.Dataset:
    """Add the accuracy in percent, and the gap to backpropagation at the same seed and levels, in points."""
    accuracy = 100 * grid["test_accuracy"]
    gap = xr.full_like(accuracy, np.nan)
    if "bp" in grid["rule"].values:
        gap = (accuracy.sel(rule="bp", drop=True) - accuracy).where(grid["rule"] != "bp").transpose(*accuracy.dims)
    return grid.assign(accuracy=accuracy, gap=gap)


def factors(grid: xr.Dataset) -> list[str]:
    """Return the names of the factors that have several levels, without rule and seed."""
    dims = grid["status"].dims
    return [str(name) for name in dims if name not in ("rule", "seed") and grid.sizes[name] > 1]


def conditions(grid: xr.Dataset, *but: str) -> list[Levels]:
    """Return the combinations of levels at which there is a cell, over all factors ``but`` some."""
    names = [name for name in factors(grid) if name not in but]
    combinations: list[Levels] = []
    for levels in product(*(grid[name].values for name in names)):
        here = dict(zip(names, levels, strict=True))
        if (grid["status"].sel(here) != "absent").any():
            combinations.append(here)
    return combinations


def levels_table(grid: xr.Dataset, methods: Methods) -> Table:
    """Tabulate every method at every combination of levels, averaged over seeds."""
    rows, picks = [], []
    names = factors(grid)
    for here in conditions(grid):
        for name in methods.among(grid):
            cell = grid.sel(here).sel(rule=name)
            status = [str(each) for each in cell["status"].values.ravel() if each != "absent"]
            if not status:
                continue
            accuracy, gap = (estimate(cell[of.name], of.bounds) for of in (ACCURACY, GAP))
            angles = (fixed(estimate(cell[of.name], of.bounds).mean, suffix=of.suffix) for of in (WEIGHT, ERROR))
            diverged = status.count("diverged")
            missing = len(status) - status.count("finished") - diverged
            numbers = (fixed(accuracy.mean), accuracy.ends, fixed(gap.mean), gap.ends, *angles)
            lost = [f"{count} {what}" for count, what in ((diverged, "diverged"), (missing, "missing")) if count]
            seeds = f"{accuracy.n}{f' ({listed(lost)})' if lost else ''}"
            rows.append((name, *(tidy(here[each]) for each in names), *numbers, seeds))
            picks.append(name)
    heads = ("test accuracy (%)", "95 % interval", "gap to bp (points)", "95 % interval", "weight angle", "error angle")
    table = Table(
        caption="Every method at every level, at the last step: means over seeds and their 95 % intervals. "
        "The gap is paired by seed. A cell that diverged counts as answering at chance; a cell that has not finished "
        "is missing.",
        columns=("rule", *map(words, names), *heads, "seeds"),
        rows=tuple(rows),
        labels=1 + len(names),
        subjects=methods.subjects,
        picks=methods.picks(picks),
    )
    return without_blanks(table)


def tuned_table(grid: xr.Dataset, methods: Methods) -> Table | None:
    """Tabulate the settings that tuning found, once for each method and level at which they differ."""
    names = [str(name) for name in grid.data_vars if str(name).startswith("tuned_")]
    if not names:
        return None
    dims = [name for name in factors(grid) if any(_varies(grid[each], name) for each in names)]
    settings = grid[names].isel({name: 0 for name in grid["status"].dims if name not in ("rule", *dims)})
    caption = "by accuracy on held-out training examples; every method had the same budget. A dash (–) marks a "
    caption += (
        "combination that is not in the grid, or whose trials all failed to finish, so that it kept the settings of "
    )
    caption += "the file."
    stacked = settings.stack(level=dims) if dims else settings.expand_dims("level")
    levels = [stacked.isel(level=at) for at in range(stacked.sizes["level"])]
    if len(names) == 1 and dims:  # a column for each method
        tuned = words(names[0].removeprefix("tuned_"))
        among = methods.among(grid)
        wide = [
            (*(tidy(here[dim].item()) for dim in dims), *(tidy(here[names[0]].sel(rule=name).item()) for name in among))
            for here in levels
        ]
        wide = [row for row in wide if any(cell != "–" for cell in row[len(dims) :])]
        return Table(f"The {tuned} that tuning chose, {caption}", (*map(words, dims), *among), tuple(wide), len(dims))
    rows, picks = [], []
    for name in methods.among(grid):
        for here in (each.sel(rule=name) for each in levels):
            values = [tidy(here[each].item()) for each in names]
            if any(value != "–" for value in values):
                rows.append((name, *(tidy(here[dim].item()) for dim in dims), *values))
                picks.append(name)
    if not rows:
        return None
    return Table(
        f"The settings that tuning chose, {caption}",
        ("rule", *map(words, dims), *(words(name.removeprefix("tuned_")) for name in names)),
        tuple(rows),
        labels=1 + len(dims),
        subjects=methods.subjects,
        picks=methods.picks(picks),
    )


def _varies(values: xr.DataArray, dim: str) -> bool:
    return dim in values.dims and bool((values.max(dim) > values.min(dim)).any())
