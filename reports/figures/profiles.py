"""Profiles: values by layer at one snapshot, the input at the bottom and the output at the top: errors travel down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.layout import carrying
from wtdiag.probes.errors import check_one_of
from wtdiag.reports.figures.axes import at_step, canvas, layers_axis, log_axis, measure_title, names_key, need
from wtdiag.reports.figures.style import BAND, FEEDBACK, INHERITED, INK, MUTED, capital, short

COSTS = {  # measures of the cost of a layer's feedback, and the label of their axis
    "attribution_angle": "degrees at the first layer",
    "attribution_loss": "share of the loss's decrease",
}


class _Part(NamedTuple):
    """A line of a profile."""

    measure: str
    label: str
    color: str
    marker: str


def error_profile(
    analysis: xr.Dataset,
    *,
    step: int | None = None,
    against: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw, for each layer, the angle between the error that it sends down and that of exact backpropagation.

    The *local* angle comes from the layer's own feedback, the *inherited* angle from the error that reached it, and the
    *total* angle from both.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`, with ``error_angle_total`` and, if they were measured, its two parts.
    step : int, optional
        Snapshot to draw; default: the last that holds any measure.
    against : Dataset, optional
        Analysis of another run of these layers, whose total angle at its own last snapshot is drawn dashed.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis has no error angles, or no snapshot of that step.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.error_profile(analysis)
    """
    need(analysis, "error_angle_total")
    parts = (
        _Part("error_angle_local", "local", FEEDBACK, "o"),
        _Part("error_angle_inherited", "inherited", INHERITED, "s"),
        _Part("error_angle_total", "total", INK, "D"),
    )
    return _angles(analysis, step, parts, "Error sent down (°)", against, ax)


def product_law(
    analysis: xr.Dataset,
    *,
    step: int | None = None,
    against: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw, for each layer, the angle of the error that trains it: as measured, and as the product law predicts it.

    The product law assumes that the local deviations of the layers above are independent:
    cos(angle) = Π cos(local angle).

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`, with ``error_angle`` and ``error_angle_product``.
    step : int, optional
        Snapshot to draw; default: the last that holds any measure.
    against : Dataset, optional
        Analysis of another run of these layers, whose measured angle at its own last snapshot is drawn dashed.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis lacks either angle, or a snapshot of that step.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.product_law(analysis)
    """
    need(analysis, "error_angle", "error_angle_product")
    parts = _Part("error_angle", "measured", INK, "D"), _Part("error_angle_product", "product law", FEEDBACK, "o")
    return _angles(analysis, step, parts, "Error that trains (°)", against, ax)


def attribution(
    analysis: xr.Dataset, measure: str = "attribution_angle", *, step: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the cost of each layer's feedback as bars.

    Thin lines are one standard error to either side, if the analysis holds errors.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`.
    measure : {"attribution_angle", "attribution_loss"}
        Cost in degrees of the error angle at the first layer, or as a share of backpropagation's one-step decrease of
        the loss.
    step : int, optional
        Snapshot to draw; default: the last that holds any measure.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the measure is not one of these, or the analysis lacks it or a snapshot of that step.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.attribution(analysis, "attribution_loss")
    """
    check_one_of("measure", measure, COSTS)
    need(analysis, measure)
    values = at_step(analysis, step)[measure]
    with canvas(ax) as axes:
        bars = axes.barh(np.arange(len(values)), values.values, color=FEEDBACK, height=0.7)
        if (error := f"{measure}_se") in analysis:
            ends = values.values, np.arange(len(values))
            axes.errorbar(*ends, xerr=at_step(analysis, step)[error].values, fmt="none", ecolor=INK, elinewidth=0.8)
        for layer, bar in enumerate(bars):
            bar.set_gid(f"layer-{layer}")
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_title(capital(measure_title(values)), parse_math=False)
        axes.set_xlabel(COSTS[measure])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        layers_axis(axes, analysis)
    return axes


def size_profile(analysis: xr.Dataset, *, step: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw, for each layer, the norm ratio of its feedback, what it makes of the error's size, and the layer's input.

    *This layer* is the norm ratio ‖B‖/‖W‖, *from the output down* is its product over this and all layers above that
    carry error, *error* is the norm of the rule's error at the layer over that of the exact one, and *activation* is
    the root mean square of the layer's input.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`, with ``norm_ratio`` and, if they were measured, ``error_norm_ratio`` and
        ``activation_norm``.
    step : int, optional
        Snapshot to draw; default: the last that holds any measure.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis has no norm ratios, or no snapshot of that step.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.size_profile(analysis)
    """
    need(analysis, "norm_ratio")
    now = at_step(analysis, step)
    ratio = np.where(carrying(now), now.norm_ratio.values.astype(float), np.nan)
    drawn = [
        ("norm_ratio", "this layer", ratio, FEEDBACK, "o"),
        ("", "from the output down", _product(ratio), INK, "D"),
    ]
    for measure, label, color, marker in (
        ("error_norm_ratio", "error", INHERITED, "s"),
        ("activation_norm", "activation", MUTED, "^"),
    ):
        if measure in now:
            drawn.append((measure, label, now[measure].values.astype(float), color, marker))
    with canvas(ax) as axes:
        axes.axvline(1, color=BAND, lw=3, zorder=0.5)
        for measure, label, values, color, marker in drawn:
            _line(axes, values, label, color, marker, measure or "norm_ratio_product")
        log_axis(axes.xaxis, np.concatenate([values for _, _, values, _, _ in drawn]))
        axes.set_xlabel("ratio, or root mean square")
        _rows(axes, now, "Feedback and activation sizes", columns=2)
    return axes


def _product(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of the ratios from the last layer to each layer; a layer without a ratio counts as 1."""
    with np.errstate(over="ignore"):
        product = np.nancumprod(ratio[::-1])[::-1]
    return np.where(np.isfinite(ratio) & np.isfinite(product), product, np.nan)


def _angles(
    analysis: xr.Dataset,
    step: int | None,
    parts: Sequence[_Part],
    title: str,
    against: xr.Dataset | None,
    ax: Axes | None,
) -> Axes:
    """Draw angles by layer, with the range of all snapshots, and the black one of another run if that is given."""
    now = at_step(analysis, step)
    black = next(part for part in parts if part.color == INK)
    other = np.empty(0) if against is None else need(at_step(against, None), black.measure, dims=("layer",)).values
    shown = [part for part in parts if part.measure in now]
    everything = np.concatenate([[90.0], other, *(analysis[part.measure].values.ravel() for part in shown)])
    with canvas(ax) as axes:
        axes.axvline(90, color=BAND, lw=3, zorder=0.5)
        for part in shown:
            _line(axes, now[part.measure].values, part.label, part.color, part.marker, part.measure)
        if against is not None:
            rule = str(against.attrs.get("rule", "unknown"))
            _line(axes, other, f"{black.label}, {short(rule, 12)}", MUTED, black.marker, "reference", "--")
        axes.set_xlim(-2, 5 + np.nanmax(everything))  # the same scale for all snapshots
        axes.xaxis.set_major_locator(MaxNLocator(steps=[3, 4.5, 9], nbins=6))
        axes.set_xlabel("angle to the exact error (°)")
        _rows(axes, now, title, columns=3 if against is None else 4)
    return axes


def _line(
    axes: Axes, values: NDArray[np.float64], label: str, color: str, marker: str, gid: str, style: str = "-"
) -> None:
    size = 3.5 if len(values) < 40 else 1.5
    axes.plot(values, np.arange(len(values)), style, color=color, marker=marker, ms=size, lw=1, label=label, gid=gid)


def _rows(axes: Axes, analysis: xr.Dataset, title: str, *, columns: int) -> None:
    """Lay the layers out as rows, with a title above and a key below."""
    layers_axis(axes, analysis)
    names_key(axes, columns)
    axes.set_title(title)
