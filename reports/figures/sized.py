"""The panels of reports: the figures of `reports.figures.plot`, sized to stand two or three to a line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wtdiag.reports.figures import plot, points
from wtdiag.reports.figures.curves import Curve
from wtdiag.reports.figures.curves import curves as named_curves
from wtdiag.reports.figures.matrix import matrix as draw_matrix
from wtdiag.reports.figures.style import HALF, THIRD, context
from wtdiag.reports.figures.trial_map import trial_map as draw_trial_map

__all__ = [
    "Curve",
    "attribution",
    "by_row",
    "curves",
    "dots",
    "error_profile",
    "groups",
    "heatmap",
    "key",
    "layer_curves",
    "levels",
    "matrix",
    "product_law",
    "size_profile",
    "small_curves",
    "spectrum",
    "stability",
    "trial_map",
]  # fmt: skip

P = ParamSpec("P")
_TALLEST = 8.4  # height of a panel that still fits on a page with its caption
_SMALL = 1.85  # height of panels three to a line


def _rows(analysis: xr.Dataset) -> float:
    """Give the height in inches of a panel with one row per layer."""
    return float(np.clip(0.85 + 0.15 * analysis.sizes["layer"], 1.7, 4.1))


def _profile(analysis: xr.Dataset) -> float:
    """Give the height of the same with a key of names below."""
    return _rows(analysis) + 0.35


def _keyed(drawn: list[Curve]) -> float:
    """Give the height of a panel with a key of names below."""
    return 2.2 + 0.16 * -(-len({line.name for line in drawn}) // 4)


def _named(found: Collection[Any]) -> float:
    """Give the height of a panel with a key below of as many names as there are."""
    return 2.2 + 0.16 * -(-len(found) // 4)


def _dotted(found: Collection[Any]) -> float:
    """Give the height of a panel with one row per name."""
    return min(_TALLEST, 0.75 + 0.21 * len(found))


def _panel(draw: Callable[P, Axes], height: Callable[[Any], float], width: float = HALF) -> Callable[P, Figure]:
    """Make a figure's function draw on a panel of its own: its size follows from what is drawn, its first argument."""

    @wraps(draw)
    def panel(*args: P.args, **options: P.kwargs) -> Figure:
        with context():
            figure = Figure(figsize=(width, height(args[0])), layout="constrained")
            options["ax"] = figure.subplots()
            draw(*args, **options)
        return figure

    return panel


attribution = _panel(plot.attribution, _rows)
curves = _panel(named_curves, _keyed)
error_profile = _panel(plot.error_profile, _profile)
size_profile = _panel(plot.size_profile, _profile)
heatmap = _panel(plot.heatmap, _rows)
layer_curves = _panel(plot.layer_curves, lambda _: 2.15)
product_law = _panel(plot.product_law, _profile)
spectrum = _panel(plot.spectrum, lambda _: 1.75, width=THIRD)
stability = _panel(plot.stability, lambda _: 2.15)

dots = _panel(points.dots, _dotted)
groups = _panel(points.groups, _named)
key = _panel(points.key, lambda _: _SMALL, width=THIRD)
levels = _panel(points.levels, _keyed)
small_curves = _panel(named_curves, lambda _: _SMALL, width=THIRD)
trial_map = _panel(draw_trial_map, lambda _: 2.9)


def by_row(found: Mapping[str, Any], *args: Any, names: Sequence[str], **options: Any) -> Figure:
    """Size a panel with a row per name, each with room for a mark of every method."""
    height = min(_TALLEST, 0.75 + 0.16 * -(-len(found) // 4) + len(names) * (0.2 + 0.07 * len(found)))
    return _panel(points.by_row, lambda _: height)(found, *args, names=names, **options)


def matrix(values: NDArray[np.float64], *args: Any, **options: Any) -> Figure:
    """Size a panel with a row and a column for each of a matrix."""
    rows, columns = values.shape
    width = float(np.clip(1.4 + 0.95 * columns, HALF, 2 * HALF))
    return _panel(draw_matrix, lambda _: min(_TALLEST, 0.75 + 0.36 * rows), width)(values, *args, **options)
