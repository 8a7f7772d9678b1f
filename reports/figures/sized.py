"""The panels of reports: the figures of `reports.figures.plot`, sized so that two or three fit side by side."""

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
    "forest",
    "groups",
    "heatmap",
    "key",
    "layer_curves",
    "levels",
    "matrix",
    "product_law",
    "size_profile",
    "slices",
    "small_curves",
    "spectrum",
    "stability",
    "trial_map",
    "width_of",
]  # fmt: skip

P = ParamSpec("P")
_TALLEST = 8.4  # greatest height of a panel that fits on a page with its caption, in inches
_SMALL = 1.85  # height of panels of which three stand side by side


def _rows(analysis: xr.Dataset) -> float:
    """Return the height, in inches, of a panel with one row per layer."""
    return float(np.clip(0.85 + 0.15 * analysis.sizes["layer"], 1.7, 4.1))


def _profile(analysis: xr.Dataset) -> float:
    """Return the height of a panel with one row per layer and a key below."""
    return _rows(analysis) + 0.35


def _keyed(drawn: list[Curve]) -> float:
    """Return the height of a panel of curves with a key below."""
    return 2.2 + 0.16 * -(-len({line.name for line in drawn}) // 4)


def _named(names: Collection[Any]) -> float:
    """Return the height of a panel with a key below that lists some names."""
    return 2.2 + 0.16 * -(-len(names) // 4)


def _dotted(names: Collection[Any]) -> float:
    """Return the height of a panel with one row per name."""
    return min(_TALLEST, 0.75 + 0.21 * len(names))


def width_of(panels: int, names: Sequence[str] = ()) -> float:
    """Return the width of each of some panels that stand together: three share a row, else there are two in a row.

    Beside long names of layers three have no room.

    Examples
    --------
    >>> width_of(4) == HALF, width_of(3) == THIRD, width_of(3, ["encoder.layer1"]) == HALF
    (True, True, True)
    """
    return THIRD if panels in (3, 5, 6) and max(map(len, names), default=0) < 11 else HALF


def _panel(draw: Callable[P, Axes], height: Callable[[Any], float], width: float = HALF) -> Callable[..., Figure]:
    """Wrap a figure's function so that it draws on a new panel, whose height follows from the first argument.

    A panel has another width if the caller gives one.
    """

    @wraps(draw)
    def panel(*args: Any, width: float = width, **options: Any) -> Figure:
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
spectrum = _panel(plot.spectrum, lambda _: 1.85, width=THIRD)
stability = _panel(plot.stability, lambda _: 2.15)

dots = _panel(points.dots, _dotted)
forest = _panel(points.forest, _dotted, width=1.5 * HALF)
groups = _panel(points.groups, _named)
key = _panel(points.key, lambda looks: 0.4 + 0.18 * points.key_rows(looks), width=THIRD)
levels = _panel(points.levels, _keyed)
slices = _panel(points.slices, lambda _: _SMALL, width=THIRD)
small_curves = _panel(named_curves, lambda _: _SMALL, width=THIRD)
trial_map = _panel(draw_trial_map, lambda _: 2.9)


def by_row(values: Mapping[str, Any], *args: Any, names: Sequence[str], **options: Any) -> Figure:
    """Draw a panel with a row per name, each with room for a mark of every method."""
    height = min(_TALLEST, 0.75 + 0.16 * -(-len(values) // 4) + len(names) * (0.2 + 0.07 * len(values)))
    return _panel(points.by_row, lambda _: height)(values, *args, names=names, **options)


def matrix(values: NDArray[np.float64], *args: Any, **options: Any) -> Figure:
    """Draw a matrix on a panel whose size follows from its numbers of rows and columns."""
    rows, columns = values.shape
    width = float(np.clip(1.4 + 0.95 * columns, HALF, 2 * HALF))
    return _panel(draw_matrix, lambda _: min(_TALLEST, 0.75 + 0.36 * rows), width)(values, *args, **options)
