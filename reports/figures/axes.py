"""Axes: how steps, layers and numbers are laid out along them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from wtdiag.diagnostics.analysis.layout import carrying, last_measured
from wtdiag.diagnostics.analysis.reading import about
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.reports.figures.style import DIVERGED, MUTED, context, printable, short

_UNITS = {"degree": "°", "1": ""}
_STRETCH = 0.3  # decades that the axis of steps gives to those before the first snapshot
_MAX_NAMES = 26  # layer names that one axis has room for


class Event(NamedTuple):
    """Short description of something that happened at a step."""

    step: int
    text: str


@contextmanager
def canvas(ax: Axes | None) -> Iterator[Axes]:
    """Yield the given axes, or new ones in the style of the reports."""
    if ax is not None:
        yield ax
        return
    from matplotlib import pyplot  # only where a figure is to be shown: it looks for a display

    with context():
        yield pyplot.subplots(figsize=(5, 3.4), layout="constrained")[1]


def need(analysis: xr.Dataset, *measures: str, dims: Sequence[str] = ()) -> xr.DataArray:
    """Check that an analysis holds all of some measures, and return the first with its dims in the given order.

    Raises
    ------
    InputError
        If this is not an analysis, a measure is missing, or the first has other dims.
    """
    if not isinstance(analysis, xr.Dataset):
        raise InputError(
            f"analysis: {analysis!r:.60} is not an analysis; expected the Dataset that wtdiag.analyze returns"
        )
    for measure in measures:
        check_one_of("measure", measure, [str(name) for name in analysis.data_vars])
    first = analysis[measures[0]]
    if dims and set(first.dims) != set(dims):
        has = ", ".join(map(str, first.dims))
        raise InputError(f"measure: {measures[0]!r} is over ({has}); expected ({', '.join(dims)})")
    return first.transpose(*dims) if dims else first


def at_step(analysis: xr.Dataset, step: int | None) -> xr.Dataset:
    """Return the analysis of one snapshot, by default of the last one that holds a measure.

    Raises
    ------
    InputError
        If there is no snapshot at that step.
    """
    if step is None:
        return analysis.isel(step=last_measured(analysis))
    check_one_of("step", str(step), [str(known) for known in analysis.step.values])
    return analysis.sel(step=step)


def measure_title(measure: xr.DataArray) -> str:
    """Return the label of a measure with its unit, as the title of a panel.

    Examples
    --------
    >>> measure_title(xr.DataArray(0.0, name="weight_angle", attrs={"units": "degree"}))
    'weight angle (°)'
    """
    known = about(measure)
    sign = _UNITS.get(known.units, known.units)
    return printable(f"{known.label} ({sign})" if sign else known.label)


def layers_axis(axes: Axes, analysis: xr.Dataset) -> None:
    """Lay the vertical axis out from the input at the bottom to the output at the top, with as many names as fit."""
    axes.set_ylim(-0.5, analysis.sizes["layer"] - 0.5)
    shown = every(analysis.sizes["layer"], _MAX_NAMES)
    axes.set_yticks(shown, [layer_name(analysis, i, 16) for i in shown], parse_math=False)
    axes.yaxis.set_gid("layer")


def layer_name(analysis: xr.Dataset, index: int, length: int) -> str:
    """Return the name of a layer, cut to a length and marked with a star if the layer carries no error."""
    mark = "" if carrying(analysis)[index] else " *"
    return short(str(analysis.layer.values[index]), length) + mark


def exact(analysis: xr.Dataset, measure: str) -> NDArray[np.bool_]:
    """Return the layers whose angle is 0 in all snapshots, as that of the error at the output is; not if all are so.

    They have nothing to tell, and would stretch the axis and the colours of the others.

    Examples
    --------
    >>> angle = xr.DataArray([[88.0, 0.0]], dims=("step", "layer"), name="error_angle", attrs={"units": "degree"})
    >>> exact(angle.to_dataset(), "error_angle")
    array([False,  True])
    """
    values = analysis[measure].transpose("layer", "step").values
    zero = np.all((values == 0) | np.isnan(values), axis=1) & np.any(values == 0, axis=1)
    if about(analysis[measure]).units != "degree" or not np.isfinite(values[~zero]).any():
        return np.zeros_like(zero)
    return np.asarray(zero)


def names_key(axes: Axes, columns: int) -> None:
    """Draw the key below the axes if they are the only ones of the figure and it has room, otherwise inside them."""
    figure = axes.figure
    if len(figure.axes) == 1 and figure.get_layout_engine() is not None:
        figure.legend(loc="outside lower left", ncols=columns, columnspacing=1.2, handlelength=1.8)
    else:
        axes.legend()


def steps_axis(axes: Axes, steps: NDArray[Any], others: Sequence[float] = ()) -> None:
    """Lay out the axis of steps, the same for all charts of these snapshots, with early training stretched if most are.

    It ends at the last snapshot, or at the last of some other steps that it has to show, such as those of events.
    """
    axes.xaxis.set_gid("step")
    positive, end = steps[steps > 0], float(max([steps[-1], *others]))
    if len(steps) == 1:
        axes.xaxis.set_major_locator(FixedLocator(steps.tolist()))
    elif len(steps) > 4 and np.median(steps) < 0.25 * steps[-1]:
        start = float(positive[0])
        axes.set_xscale("symlog", linthresh=start, linscale=_STRETCH)
        decades = 10.0 ** np.arange(np.ceil(np.log10(start)), np.floor(np.log10(end)) + 1)
        ticks = decades if len(decades) > 1 else (start, end)
        axes.xaxis.set_major_locator(FixedLocator([0.0, *ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if end > steps[0]:
        place = axes.xaxis.get_transform()
        low, high = place.transform([float(steps[0]), end])
        margin = 0.02 * (high - low)
        axes.set_xlim(*place.inverted().transform([low - margin, high + margin]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def near(events: Sequence[Event], steps: NDArray[Any]) -> list[float]:
    """Return the steps of the events up to which an axis of these snapshots reaches: a little beyond the last one.

    Examples
    --------
    >>> near([Event(15, "diverged"), Event(10**9, "diverged")], np.array([0, 13]))
    [15.0]
    """
    return [float(step) for step, _ in events if step <= 1.25 * steps[-1]]


def mark(axes: Axes, events: Sequence[Event], place: Callable[[int], float] = float) -> None:
    """Draw a dashed line at the step of each event, or where ``place`` puts that step; divergence is highlighted."""
    for step, text in events:
        color, width = (DIVERGED, 1.2) if text.startswith("diverged") else (MUTED, 0.8)
        axes.axvline(place(step), color=color, lw=width, ls=(0, (3, 2)))


def log_axis(axis: Axis, values: ArrayLike, *, floor: float = 0.0) -> bool:
    """Make an axis logarithmic if its values span a factor of 30, and return whether it is.

    The axis reaches down to ``floor`` times the largest value.
    """
    reach = _decades(values)
    if reach is None:
        return False
    high = reach[1]
    low = max(reach[0], high + np.log10(floor)) if floor else reach[0]
    margin = max(0.1, 0.05 * (high - low))  # in decades, so that markers at the ends are not cut off
    upright = axis is axis.axes.yaxis
    (axis.axes.set_yscale if upright else axis.axes.set_xscale)("log")
    (axis.axes.set_ylim if upright else axis.axes.set_xlim)(10 ** (low - margin), 10 ** (high + margin))
    decades = high - low + 2 * margin
    if decades < 2.5:  # too short for powers of ten alone
        axis.set_major_locator(LogLocator(subs=(1, 3) if decades > 1.2 else (1, 2, 5)))
    elif not upright:  # numbers side by side need more room than those above one another
        axis.set_major_locator(LogLocator(numticks=6))
    plain_numbers(axis)
    axis.set_minor_locator(NullLocator())
    return True


def left_out(*drawn: ArrayLike) -> str:
    """Return a sentence on left-out values if any of some charts has a logarithmic axis that cannot show all of them.

    Examples
    --------
    >>> left_out([1.0, 100.0, -2.0])
    ' A logarithmic axis leaves out values of 0 or less.'
    >>> left_out([1.0, 2.0, -2.0], [1.0, 100.0])
    ''
    """
    hidden = any(_decades(values) is not None and np.less_equal(values, 0).any() for values in drawn)
    return " A logarithmic axis leaves out values of 0 or less." if hidden else ""


def _decades(values: ArrayLike) -> tuple[float, float] | None:
    """Return the logarithms of the least and the largest positive value; None if they span less than a factor of 30."""
    positive = np.asarray(values, dtype=float)
    positive = positive[(positive > 1e-280) & (positive < 1e280)]  # leaves room for the margins
    if not positive.size or positive.max() / 30 < positive.min():
        return None
    return float(np.log10(positive.min())), float(np.log10(positive.max()))


def plain_numbers(axis: Axis) -> None:
    """Label an axis with numbers like 0.01 and 1e-5, not with powers of ten, which need mathematical type."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    if axis.get_scale() == "log":
        axis.set_minor_formatter(_Between())


class _Between(LogFormatter):
    """Numbers at the ticks between powers of ten, where a logarithmic axis is so short that it has too few of these."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return plain(x) if super().__call__(x, pos) else ""


def plain(value: float) -> str:
    """Format a number without padding.

    Examples
    --------
    >>> plain(0.01), plain(1e8), plain(1e-5)
    ('0.01', '1e8', '1e-5')
    """
    return re.sub(r"e([+-])0*", lambda match: f"e{match[1].strip('+')}", f"{value:g}")


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices out of ``count``, evenly spread, ends included.

    Examples
    --------
    >>> spread(3, 8), spread(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return [int(index) for index in np.linspace(0, count - 1, min(count, most)).round()]


def every(count: int, most: int) -> range:
    """Return at most ``most`` evenly spaced indices out of ``count``, starting with the first.

    Examples
    --------
    >>> list(every(9, 6))
    [0, 2, 4, 6, 8]
    """
    return range(0, count, -(-count // most))


def compact(value: float) -> str:
    """Format the number of a step in a few characters.

    Examples
    --------
    >>> compact(0), compact(2500), compact(1e6)
    ('0', '2.5k', '1M')
    """
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:g}"
