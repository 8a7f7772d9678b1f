"""The panels of reports: the figures of `reports.plot`, sized to stand two or three to a line."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import plot
from reports.curves import Curve
from reports.curves import curves as named_curves
from reports.style import HALF, THIRD, context

__all__ = [
    "Curve", "attribution", "curves", "error_profile", "gain_profile", "heatmap", "layer_curves", "product_law",
    "spectrum", "stability",
]  # fmt: skip

P = ParamSpec("P")


def _rows(analysis: xr.Dataset) -> float:
    """Give the height in inches of a panel with one row per layer."""
    return float(np.clip(0.85 + 0.15 * analysis.sizes["layer"], 1.7, 4.1))


def _profile(analysis: xr.Dataset) -> float:
    """Give the height of the same with a key of names below."""
    return _rows(analysis) + 0.35


def _keyed(drawn: list[Curve]) -> float:
    """Give the height of a panel with a key of names below."""
    return 2.2 + 0.16 * -(-len({line.name for line in drawn}) // 4)


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
gain_profile = _panel(plot.gain_profile, _profile)
heatmap = _panel(plot.heatmap, _rows)
layer_curves = _panel(plot.layer_curves, lambda _: 2.15)
product_law = _panel(plot.product_law, _profile)
spectrum = _panel(plot.spectrum, lambda _: 1.75, width=THIRD)
stability = _panel(plot.stability, lambda _: 2.15)
