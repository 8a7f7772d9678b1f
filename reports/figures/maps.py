"""Maps by step and layer, and the choice of colours for the values of a measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, FuncNorm, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.reading import about
from wtdiag.probes import Measure
from wtdiag.reports.figures.axes import (
    Event,
    canvas,
    exact,
    layers_axis,
    mark,
    measure_title,
    near,
    need,
    plain_numbers,
    steps_axis,
)
from wtdiag.reports.figures.style import ALIGNMENT, INK, MAGNITUDE, MISSING, RATIO, capital

_TICKS = {  # ticks of a key from 1/reach to reach, by the largest reach that they suit
    2.5: (0.5, 0.7, 1.0, 1.4, 2.0),
    10.0: (0.1, 0.3, 1.0, 3.0, 10.0),
    np.inf: (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
}


def heatmap(analysis: xr.Dataset, measure: str, *, events: Sequence[Event] = (), ax: Axes | None = None) -> Axes:
    """Draw a map of a measure by step and layer.

    The colours diverge from the value that chance gives (angles, sign agreement) or from 1 (ratios, gains, step-size
    numbers, whose limit 1 is drawn as a contour), according to the attributes of the measure, and reach as far as the
    values do, except for the zeros of layers whose angle is 0 in all snapshots; for other measures they run from the
    smallest to the largest value. Every snapshot has one column, up
    to the middle between it and the next on the axis of steps; missing values are grey.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`.
    measure : str
        A variable over step and layer.
    events : sequence of (step, text)
        Events to mark before the first snapshot that follows them; a text that begins with "diverged" is highlighted.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis has no such measure.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia-diverged.nc", engine="h5netcdf")
    >>> ax = plot.heatmap(analysis, "step_size_number", events=[(57, "diverged")])
    """
    values = need(analysis, measure, dims=("layer", "step"))
    known, apart = about(values), exact(analysis, measure)
    told = values.values[~apart].astype(float)
    norm, colors = _scale(known, told)
    with canvas(ax) as axes:
        axes.set_facecolor(MISSING)
        finite = np.ma.masked_invalid(values.values.astype(float))
        steps = analysis.step.values
        shown = steps, near(events, steps)
        steps_axis(axes, *shown)
        layers_axis(axes, analysis)
        edges = _edges(axes, steps)
        image = axes.pcolormesh(
            edges, np.arange(len(finite) + 1) - 0.5, finite, cmap=colors, norm=norm, rasterized=True
        )
        steps_axis(axes, *shown)
        layers_axis(axes, analysis)
        axes.grid(visible=False)
        if known.limit is not None:
            _limit(axes, np.ma.filled(finite, 0.0) > known.limit, edges)
        _key(axes, known, image, told[np.isfinite(told)], beyond=apart.any())
        axes.set_title(capital(measure_title(values)), parse_math=False)
        axes.set_xlabel("training step")
        mark(axes, events)
    return axes


def _edges(axes: Axes, steps: NDArray[Any]) -> NDArray[np.float64]:
    """Return the edges of each snapshot's column, in steps: halfway to its neighbours on the axis."""
    place = axes.xaxis.get_transform()
    low, high = place.transform(np.asarray(axes.get_xlim(), dtype=float))
    at = place.transform(steps.astype(float))
    if len(at) > 1:  # the axis may go on to the step at which the run diverged
        high = min(high, max(1.5 * at[-1] - 0.5 * at[-2], at[-1] + 0.02 * (high - low)))
    edges = place.inverted().transform(np.array([low, *(at[1:] + at[:-1]) / 2, high]))
    return np.asarray(edges, dtype=float)


def _limit(axes: Axes, above: NDArray[np.bool_], edges: NDArray[np.float64]) -> None:
    """Draw the border of the cells that lie above a limit."""
    upright = [[(edges[x + 1], y - 0.5), (edges[x + 1], y + 0.5)] for y, x in np.argwhere(np.diff(above, axis=1))]
    level = [[(edges[x], y + 0.5), (edges[x + 1], y + 0.5)] for y, x in np.argwhere(np.diff(above, axis=0))]
    axes.add_collection(LineCollection(upright + level, colors=INK, linewidths=0.9), autolim=False)


def _key(axes: Axes, measure: Measure, image: ScalarMappable, shown: NDArray[np.float64], *, beyond: np.bool_) -> None:
    """Draw the colour key as far as the shown values reach; some lie below its end if there are others ``beyond``."""
    centre, chance = _centre(measure), _chance(measure, shown)
    ends = (image.norm.vmin, image.norm.vmax) if isinstance(image.norm, _RatioNorm) else (None, None)
    below, above = (bool(end and len(shown) and out) for end, out in (
        (ends[0], len(shown) and shown.min() < (ends[0] or 0) * 0.999),
        (ends[1], len(shown) and shown.max() > (ends[1] or 0) * 1.001),
    ))  # fmt: skip
    below = below or bool(beyond)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25, extend=extend)
    bar.outline.set_visible(False)
    if measure.limit is not None:
        bar.ax.axhline(measure.limit, color=INK, lw=0.9)
    if centre is not None:
        reach = max(centre / (ends[0] or centre), (ends[1] or centre) / centre)
        ticks = next(ticks for most, ticks in _TICKS.items() if reach <= most)
        low, high = ends[0] or centre, ends[1] or centre
        bar.ax.yaxis.set_major_locator(
            FixedLocator([at for at in (centre * tick for tick in ticks) if low <= at <= high])
        )
        bar.ax.yaxis.set_minor_locator(NullLocator())
        plain_numbers(bar.ax.yaxis)
        if (shown != centre).any():
            bar.ax.set_ylim(max(low, shown.min(initial=centre)), min(high, shown.max(initial=centre)))
    elif chance is not None and measure.neutral is not None and (shown != measure.neutral).any():
        bar.ax.set_ylim(shown.min(initial=measure.neutral), shown.max(initial=measure.neutral))


class _RatioNorm(FuncNorm):
    """Logarithmic norm with a colour of its own for the centre, and for values of 0 or less that of the smallest.

    Each side of the centre has its own reach, so that the colours of the side on which the values lie are all used.
    """

    def __init__(self, low: float, centre: float, high: float) -> None:
        ends = np.log([low, centre, high])

        def forward(values: Any) -> Any:
            values = np.asarray(values, dtype=float)
            return np.interp(np.log(np.where(values > 0, values, low)), ends, [0.0, 0.5, 1.0])

        def back(shares: Any) -> Any:
            return np.exp(np.interp(shares, [0.0, 0.5, 1.0], ends))

        super().__init__((forward, back), low, high)


def _centre(measure: Measure) -> float | None:
    """Return the value about which the colours are symmetric in ratio: the limit or the neutral value, or else None."""
    centre = measure.neutral if measure.limit is None else measure.limit
    return centre if measure.scale == "log" and centre else None


def _reach(measure: Measure) -> float:
    """Return the ratio to the centre at which the colours end at the latest, larger for ratios than for a limit."""
    return 1000.0 if measure.limit is None else 10.0


def _chance(measure: Measure, finite: NDArray[np.float64]) -> Normalize | None:
    """Return a range with the value of chance in its middle; None for a measure that has no such value.

    It reaches as far as the values, and at least to a tenth of what is possible: less than that is noise.
    """
    low, high = measure.bounds
    if measure.scale == "log" or measure.neutral is None or not np.isfinite(high - low):
        return None
    possible = max(measure.neutral - low, high - measure.neutral)
    reach = max(np.abs(finite - measure.neutral).max(initial=0.0), possible / 10)
    return Normalize(measure.neutral - reach, measure.neutral + reach)


def _falls(measure: Measure) -> bool:
    """Return whether a measure falls as W and B align; angles do, shares of agreement rise."""
    return measure.units == "degree"


def _scale(measure: Measure, values: NDArray[np.float64]) -> tuple[Normalize, Colormap]:
    finite = values[np.isfinite(values)]
    if (centre := _centre(measure)) is not None:
        logs = np.log(finite[finite > 0] / centre)
        # At least a factor 2 to each side; one exploded layer, or a gain near zero, must not hide the others.
        most = np.log(_reach(measure))
        below, above = (
            float(np.clip(np.quantile(side, 0.95) if len(side) else 0.0, np.log(2), most))
            for side in (-logs[logs < 0], logs[logs > 0])
        )
        ratio = _RatioNorm(centre * np.exp(-below), centre, centre * np.exp(above))
        return ratio, RATIO if measure.limit is None else ALIGNMENT
    if (norm := _chance(measure, finite)) is not None:
        return norm, ALIGNMENT if _falls(measure) else ALIGNMENT.reversed()
    if finite.size and 0 < finite.min() <= finite.max() / 30:
        return LogNorm(finite.min(), finite.max()), MAGNITUDE
    return Normalize(*((finite.min(), finite.max()) if finite.size else (0, 1))), MAGNITUDE
