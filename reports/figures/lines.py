"""Curves over training, one per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Normalize
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.chance import DEVIATIONS, chance_band
from wtdiag.diagnostics.analysis.reading import about, meaningful
from wtdiag.reports.figures.axes import (
    Event,
    canvas,
    exact,
    layer_name,
    left_out,
    log_axis,
    mark,
    measure_title,
    near,
    need,
    spread,
    steps_axis,
)
from wtdiag.reports.figures.style import BAND, DEPTH, DIVERGED, capital

_BANDS = 8  # the most bands of chance in one panel


def layer_curves(
    analysis: xr.Dataset,
    measure: str,
    *,
    log: bool = False,
    chance: bool = False,
    predicted: str | None = None,
    limit: float | None = None,
    events: Sequence[Event] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure over training, one curve per layer, coloured by depth.

    Curves of layers in which the measure has no meaning are dotted. A layer whose angle is 0 in all snapshots, as that
    of the error at the output is, has no curve.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`.
    measure : str
        A variable over step and layer.
    log : bool
        Draw a logarithmic axis if the values span a factor of 30; values of 0 or less are then left out.
    chance : bool
        Draw the values that chance explains (`chance_band`): a band for each of up to eight layers, or one band that
        covers all layers. Where the bands of layers overlap they are darker.
    predicted : str, optional
        A variable that holds where theory predicts that each curve comes to rest, drawn dashed.
    limit : float, optional
        Value above which the panel is shaded.
    events : sequence of (step, text)
        Events to mark; a text that begins with "diverged" is highlighted.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis lacks a variable.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.layer_curves(analysis, "weight_angle", chance=True, predicted="predicted_angle")
    """
    values = need(analysis, measure, *([predicted] if predicted else []), dims=("layer", "step"))
    steps = analysis.step.values
    solid, hidden = meaningful(analysis, measure), exact(analysis, measure)
    key = (
        BoundaryNorm(np.arange(len(solid) + 1) - 0.5, max(256, len(solid))) if len(solid) > 1 else Normalize(-0.5, 0.5)
    )
    bands = null_bands(analysis, measure) if chance else []
    alone = np.isfinite(values.values).any(axis=0).sum() < 2  # a single point makes no line
    with canvas(ax) as axes:
        reach = [] if limit is None else [limit / 30, limit]
        positive = log and log_axis(axes.yaxis, np.append(_drawn(analysis, measure, predicted), reach))
        _chance(axes, steps, bands)
        if predicted:
            for layer, curve in enumerate(_shown(analysis, predicted, positive)):
                if solid[layer]:
                    color, gid = DEPTH(key(layer)), f"layer-{layer}:predicted"
                    axes.plot(steps, curve, "--", marker="_" if alone else "", color=color, lw=0.7, alpha=0.7, gid=gid)
        width = 1.2 if len(solid) < 30 else 0.7
        for layer, curve in enumerate(_shown(analysis, measure, positive)):
            if hidden[layer]:
                continue
            style = "-" if solid[layer] else ":"
            axes.plot(
                steps,
                curve,
                style,
                marker="o" if alone else "",
                color=DEPTH(key(layer)),
                lw=width,
                gid=f"layer-{layer}",
            )
        _depth_key(axes, analysis, key)
        axes.set_title(capital(measure_title(values)), pad=16 if bands else 6, parse_math=False)
        axes.set_xlabel("training step")
        steps_axis(axes, steps, near(events, steps))
        if limit is not None:
            low, high = axes.get_ylim()
            high = max(high, 2 * limit)
            axes.set_ylim(low, high)
            axes.axhspan(limit, high, color=DIVERGED, alpha=0.1, lw=0)
            axes.axhline(limit, color=DIVERGED, lw=1)
        mark(axes, events)
    return axes


def stability(analysis: xr.Dataset, *, events: Sequence[Event] = (), ax: Axes | None = None) -> Axes:
    """Draw the step-size number of every layer over training.

    S is the learning rate of the feedback over the largest stable one: η·λmax(H)/(2(1+μ)) with momentum μ, if H is
    the same in all batches. Above 1, where the panel is shaded, the feedback of that layer grows without bound; events
    can mark when that was observed.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`, with ``step_size_number``.
    events : sequence of (step, text)
        Events to mark; a text that begins with "diverged" is highlighted.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis has no step-size numbers.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia-diverged.nc", engine="h5netcdf")
    >>> ax = plot.stability(analysis, events=[(57, "diverged")])
    """
    limit = about(need(analysis, "step_size_number")).limit
    return layer_curves(analysis, "step_size_number", log=True, limit=limit, events=events, ax=ax)


def not_drawn(analysis: xr.Dataset, measures: Mapping[str, str | None]) -> str:
    """Return a sentence for the caption if `layer_curves` leaves values out on a logarithmic axis.

    ``measures`` maps each measure to the variable that predicts it, or to None.
    """
    return left_out(*(_drawn(analysis, measure, predicted) for measure, predicted in measures.items()))


def null_bands(analysis: xr.Dataset, measure: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the lowest and highest value at each step that chance explains in each layer in which that is known.

    Layers with the same band share one, and if more than eight bands differ, one covers all layers.
    """
    if f"{measure}_null" not in analysis or f"{measure}_null_sd" not in analysis:
        return []
    null = analysis[f"{measure}_null"].broadcast_like(analysis[measure])
    sd = analysis[f"{measure}_null_sd"].broadcast_like(analysis[measure])
    shown = meaningful(analysis, measure) & ~exact(analysis, measure)
    if shown.any():  # the band of feedback that carries no error would hide what the other layers have learned
        null, sd = null.isel(layer=shown), sd.isel(layer=shown)
    low, high = chance_band(null, sd)
    known = about(analysis[measure])
    low, high = low.clip(*known.bounds), high.clip(*known.bounds)
    if known.scale == "log" and known.neutral is not None and known.bounds[0] >= 0:
        low = low.clip(min=1e-3)  # a ratio, drawn on a logarithmic axis
    edges = np.stack([low.transpose("layer", "step").values, high.transpose("layer", "step").values], axis=1)
    apart = np.unique(edges[np.isfinite(edges).any(axis=(1, 2))].round(6), axis=0)
    if len(apart) <= _BANDS:
        return [(low, high) for low, high in apart]
    return [(np.nanmin(edges[:, 0], axis=0), np.nanmax(edges[:, 1], axis=0))]


def _shown(analysis: xr.Dataset, measure: str, positive: bool) -> NDArray[np.float64]:
    """Return a measure by layer and step, with NaN for values of 0 or less if only ``positive`` ones can be shown."""
    values = np.asarray(analysis[measure].transpose("layer", "step").values, dtype=np.float64)
    return np.where(values > 0, values, np.nan) if positive else values


def _drawn(analysis: xr.Dataset, measure: str, predicted: str | None) -> NDArray[np.float64]:
    """Return all values of the curves of a measure, and those of its prediction."""
    curves = [_shown(analysis, measure, positive=False)]
    if predicted:
        curves.append(_shown(analysis, predicted, positive=False)[meaningful(analysis, measure)])
    return np.concatenate(curves).ravel()


def _chance(axes: Axes, steps: NDArray[Any], bands: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Draw the bands that chance explains, even if they are known at a single step, with their key."""
    label = f"chance ± {DEVIATIONS} sd"
    style: dict[str, Any] = {"color": BAND, "lw": 0, "zorder": 0.5, "alpha": 1.0 if len(bands) == 1 else 0.5}
    for low, high in bands:
        known = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
        if len(known) > 1:
            axes.fill_between(steps, low, high, label=label, **style)
        elif len(known):
            axes.axhspan(low[known[0]], high[known[0]], label=label, **style)
        label = "_"
    if not bands:
        return
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.99), borderaxespad=0, handlelength=1.2)


def _depth_key(axes: Axes, analysis: xr.Dataset, colors: Normalize) -> None:
    """Draw the key of colours with the names of the layers, the first at the bottom."""
    bar = axes.figure.colorbar(ScalarMappable(colors, DEPTH), ax=axes, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    shown = spread(analysis.sizes["layer"], 8)
    bar.set_ticks(shown, labels=[layer_name(analysis, i, 14) for i in shown], parse_math=False)
    bar.ax.tick_params(length=0)
    bar.ax.minorticks_off()
