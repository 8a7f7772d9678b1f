"""The map of a sweep: how well each trial did, and the boundaries that theory predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from wtdiag.diagnostics.findings.thresholds import limit
from wtdiag.reports.figures.axes import canvas, plain_numbers
from wtdiag.reports.figures.style import DIVERGED, INK, MAGNITUDE, MUTED

GAIN, STEP = "predicted_log_gain", "predicted_step_size_number"
BOUNDARIES = {  # by predicted variable: the threshold at its boundary, the line style and the label
    STEP: ("step_size_number", "-", "S = 1: feedback unstable beyond"),
    GAIN: ("gain_sum", (0, (3, 2)), "log gain {:g}: errors blow up beyond"),
}


def trial_map(
    search: xr.Dataset,
    *,
    x: str,
    y: str,
    log: tuple[bool, bool],
    title: str,
    ends: tuple[float, float] = (0.0, 1.0),
    ax: Axes | None = None,
) -> Axes:
    """Draw the trials of one method over two parameters, coloured by how well they did, and the predicted boundaries.

    Parameters
    ----------
    search : Dataset
        It holds, over trial, the two parameters, ``status`` and ``relative``, the accuracy over the best of
        backpropagation, whose long name labels the colour bar; and over map_x and map_y the predictions, if any.
    x, y : str
        The parameters.
    log : pair of bool
        Whether each of the axes is logarithmic.
    ends : pair of float
        The accuracies at the ends of the colours, which maps that stand together share.
    """
    with canvas(ax) as axes:
        for axis, logarithmic, name in zip((axes.xaxis, axes.yaxis), log, (x, y), strict=True):
            if logarithmic:
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
                plain_numbers(axis)
            axis.set_label_text(name.replace("_", " "), parse_math=False)
        key = _boundaries(axes, search)
        spans = ((axes.set_xlim, "map_x", x, log[0]), (axes.set_ylim, "map_y", y, log[1]))
        for span, name, parameter, logarithmic in spans:
            both = np.concatenate([search[name].values, search[parameter].values])
            both = both[both > 0] if logarithmic else both
            span(both.min(), both.max())
        status = search["status"].values.astype(str)
        at, up = (np.asarray(search[name].values, dtype=float) for name in (x, y))
        done = status == "finished"
        relative = np.asarray(search["relative"].values, dtype=float)
        norm = Normalize(*ends)
        image = axes.scatter(
            at[done], up[done], c=relative[done], cmap=MAGNITUDE, norm=norm, s=16, edgecolors=MUTED, linewidths=0.4
        )
        for name, marker, color, size in (("diverged", "x", DIVERGED, 22), ("pruned", "+", MUTED, 26)):
            shown = status == name
            if shown.any():
                axes.scatter(at[shown], up[shown], marker=marker, c=color, s=size, linewidths=1.2)
                key.append(Line2D([], [], ls="", marker=marker, color=color, mew=1.2, label=name))
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25)
        bar.outline.set_visible(False)
        bar.set_label(search["relative"].attrs["long_name"], fontsize=7)
        axes.set_title(title, parse_math=False)
        # Room for two rows of the key, so that maps that stand together have one size.
        key += [Line2D([], [], ls="", label=" ")] * (3 - len(key))
        axes.figure.legend(handles=key, loc="outside lower left", ncols=2, columnspacing=1.2, handlelength=1.8)
    return axes


def _boundaries(axes: Axes, search: xr.Dataset) -> list[Any]:
    """Draw the predicted boundaries, shade the part beyond the limit of stability, and return the key."""
    key: list[Any] = []
    for name, (threshold, style, label) in BOUNDARIES.items():
        if name not in search:
            continue
        # Values that grow without bound lie beyond any boundary.
        values = np.clip(search[name].transpose("map_y", "map_x").values.astype(float), -1e9, 1e9)
        across, up, edge = search["map_x"].values, search["map_y"].values, limit(threshold)
        finite = values[np.isfinite(values)]
        if not finite.size:
            continue
        inside = finite.min() < edge < finite.max()
        if name == STEP and finite.max() > edge:
            axes.contourf(across, up, values, levels=[edge, np.inf], colors=[DIVERGED], alpha=0.1)
        if inside:
            axes.contour(across, up, values, levels=[edge], colors=INK, linewidths=1.2, linestyles=[style])
            key.append(Line2D([], [], color=INK, lw=1.2, ls=style, label=label.format(edge)))
    return key


def beyond(search: xr.Dataset, *, x: str, y: str, log: tuple[bool, bool]) -> NDArray[np.bool_]:
    """Return whether each trial lies beyond a predicted boundary; outside the map, its nearest edge counts."""
    from scipy.interpolate import RegularGridInterpolator  # here, because only sweeps need it

    outside = np.zeros(search.sizes["trial"], dtype=bool)
    scale = [np.log if logarithmic else np.asarray for logarithmic in log]
    axes = [do(search[name].values.astype(float)) for do, name in zip(scale, ("map_x", "map_y"), strict=True)]
    with np.errstate(all="ignore"):
        places = [
            np.clip(do(np.asarray(search[name].values, dtype=float)), axis.min(), axis.max())
            for do, name, axis in zip(scale, (x, y), axes, strict=True)
        ]
    for name, (threshold, _, _) in BOUNDARIES.items():
        if name in search:
            values = np.clip(search[name].transpose("map_x", "map_y").values.astype(float), -1e9, 1e9)
            at = RegularGridInterpolator(axes, values)(np.column_stack(places))
            # Next to a point of the map without a value, the nearest point decides.
            near = RegularGridInterpolator(axes, values, method="nearest")(np.column_stack(places))
            outside |= np.where(np.isnan(at), near, at) > limit(threshold)
    return outside
