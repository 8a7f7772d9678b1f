"""Maps by step and layer, and the choice of colours for the values of a measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.reading import about
from wtdiag.probes import Measure
from wtdiag.reports.figures.axes import (
    Event,
    canvas,
    compact,
    every,
    layers_axis,
    mark,
    measure_title,
    need,
    plain_numbers,
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
    numbers, whose limit 1 is drawn as a contour), according to the attributes of the measure; for other measures they
    run from the smallest to the largest value. Every snapshot has one column, whatever its distance to the next;
    missing values are grey.

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
    known = about(values)
    norm, colors = _scale(known, values)
    with canvas(ax) as axes:
        axes.set_facecolor(MISSING)
        finite = np.ma.masked_invalid(values.values.astype(float))
        image = axes.imshow(finite, aspect="auto", cmap=colors, norm=norm)
        axes.grid(visible=False)
        if known.limit is not None:
            _limit(axes, np.ma.filled(finite, 0.0) > known.limit)
        _key(axes, known, image, finite)
        axes.set_title(capital(measure_title(values)), parse_math=False)
        axes.set_xlabel("training step (one column per snapshot)")
        shown = every(len(analysis.step), 6)
        axes.set_xticks(shown, [compact(analysis.step.values[i]) for i in shown])
        axes.xaxis.set_gid("step")
        layers_axis(axes, analysis)
        mark(axes, events, lambda step: float(np.searchsorted(analysis.step.values, step)) - 0.5)
    return axes


def _limit(axes: Axes, above: NDArray[np.bool_]) -> None:
    """Draw the border of the cells that lie above a limit."""
    upright = [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(np.diff(above, axis=1))]
    level = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(np.diff(above, axis=0))]
    axes.add_collection(LineCollection(upright + level, colors=INK, linewidths=0.9), autolim=False)


def _key(axes: Axes, measure: Measure, image: ScalarMappable, values: np.ma.MaskedArray[Any, Any]) -> None:
    """Draw the colour key."""
    centre, chance = _centre(measure), _chance(measure)
    reach = image.norm.vmax / centre if isinstance(image.norm, LogNorm) and image.norm.vmax and centre else 0.0
    bar = axes.figure.colorbar(
        image, ax=axes, pad=0.02, aspect=25, extend="both" if reach == _reach(measure) else "neither"
    )
    bar.outline.set_visible(False)
    if measure.limit is not None:
        bar.ax.axhline(measure.limit, color=INK, lw=0.9)
    if centre is not None:
        ticks = next(ticks for most, ticks in _TICKS.items() if reach <= most)
        bar.ax.yaxis.set_major_locator(FixedLocator([centre * tick for tick in ticks]))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        plain_numbers(bar.ax.yaxis)
    elif chance is not None and measure.neutral is not None:
        # Colours cover the whole range, so that maps can be compared; the key shows only the part that occurs.
        low, high = (measure.bounds[0], measure.neutral) if _falls(measure) else (measure.neutral, measure.bounds[1])
        shown = values.compressed()
        bar.ax.set_ylim(shown.min(initial=low), shown.max(initial=high))


class _RatioNorm(LogNorm):
    """Logarithmic norm in which values of 0 or less count as the smallest."""

    def __call__(self, value: Any, clip: bool | None = None) -> Any:
        values = np.ma.asarray(value)
        smallest = self.vmin or 1.0
        return super().__call__(np.ma.masked_array(np.where(values.data > 0, values.data, smallest), values.mask), clip)


def _centre(measure: Measure) -> float | None:
    """Return the value about which the colours are symmetric in ratio: the limit or the neutral value, or else None."""
    centre = measure.neutral if measure.limit is None else measure.limit
    return centre if measure.scale == "log" and centre else None


def _reach(measure: Measure) -> float:
    """Return the ratio to the centre at which the colours end; for ratios it is larger than for a limit."""
    return 1000.0 if measure.limit is None and measure.bounds[0] >= 0 else 10.0


def _chance(measure: Measure) -> Normalize | None:
    """Return a range with the value of chance in its middle; None for a measure that has no such value."""
    low, high = measure.bounds
    if measure.scale == "log" or measure.neutral is None or not np.isfinite(high - low):
        return None
    reach = max(measure.neutral - low, high - measure.neutral)
    return Normalize(measure.neutral - reach, measure.neutral + reach)


def _falls(measure: Measure) -> bool:
    """Return whether a measure falls as W and B align; angles do, shares of agreement rise."""
    return measure.units == "degree"


def _scale(measure: Measure, values: xr.DataArray) -> tuple[Normalize, Colormap]:
    finite = values.values[np.isfinite(values.values)]
    if (centre := _centre(measure)) is not None:
        logs = np.abs(np.log(finite[finite > 0] / centre))
        # Symmetric about the centre and at least a factor 2; one exploded layer must not hide the others.
        reach = float(np.exp(min(logs.max(initial=np.log(2)), np.log(_reach(measure)))))
        return _RatioNorm(centre / reach, centre * reach), RATIO if measure.limit is None else ALIGNMENT
    if (norm := _chance(measure)) is not None:
        return norm, ALIGNMENT if _falls(measure) else ALIGNMENT.reversed()
    if finite.size and 0 < finite.min() <= finite.max() / 30:
        return LogNorm(finite.min(), finite.max()), MAGNITUDE
    return Normalize(*((finite.min(), finite.max()) if finite.size else (0, 1))), MAGNITUDE
