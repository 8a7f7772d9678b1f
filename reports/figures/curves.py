"""Named curves of several runs, over training or depth, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from wtdiag.diagnostics.analysis.reading import meaningful
from wtdiag.probes.errors import InputError
from wtdiag.reports.figures.axes import (
    Event,
    canvas,
    compact,
    log_axis,
    mark,
    measure_title,
    names_key,
    near,
    need,
    spread,
    steps_axis,
)
from wtdiag.reports.figures.style import Look, look, short


class Curve(NamedTuple):
    """A line of a panel: name in the key, look, points, gid and band. Several lines may share a name."""

    name: str
    look: Look
    x: ArrayLike
    y: ArrayLike
    dashed: bool = False
    gid: str | None = None
    low: ArrayLike | None = None
    high: ArrayLike | None = None


def average(name: str, drawn: Look, series: Sequence[pd.Series[Any]], *, gid: str | None = None) -> list[Curve]:
    """Return the mean of several series as one curve, in a band of one standard deviation.

    A single series, or series that share no point, are returned as curves of their own. A series without values is
    left out.
    """
    filled = [values for of_run in series if len(values := of_run.dropna())]
    common = pd.concat(filled, axis=1, join="inner") if len(filled) > 1 else pd.DataFrame()
    if common.empty:
        return [Curve(name, drawn, values.index, values.values, gid=gid) for values in filled]
    mean, sd = common.mean(axis=1), common.std(axis=1, ddof=0)
    return [Curve(name, drawn, common.index, mean.values, gid=gid, low=mean - sd, high=mean + sd)]


def compare(analyses: Sequence[xr.Dataset], measure: str, *, ax: Axes | None = None) -> Axes:
    """Draw a measure over training by rule, averaged over the layers in which it has a meaning.

    There is one line per rule: the mean over its runs, in a band of one standard deviation over runs. A rule has the
    same colour and marker in every figure.

    Parameters
    ----------
    analyses : sequence of Dataset
        Results of `wtdiag.analyze`; ``attrs["rule"]`` names the rule.
    measure : str
        A variable over step and layer that all analyses hold.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If this is not a list of analyses, it is empty, or one of them lacks the measure.

    Examples
    --------
    >>> from pathlib import Path
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> paths = sorted(Path("docs/gallery").glob("compare-*.nc"))
    >>> ax = plot.compare([xr.load_dataset(path, engine="h5netcdf") for path in paths], "weight_angle")
    """
    if hasattr(analyses, "data_vars"):
        raise InputError("analyses: got a single Dataset; expected a list of them, as wtdiag.analyze returns them")
    if not analyses:
        raise InputError("analyses: none given; expected at least one Dataset, as wtdiag.analyze returns it")
    by_rule: dict[str, list[pd.Series[Any]]] = {}
    for analysis in analyses:
        values = need(analysis, measure, dims=("step", "layer"))
        rows = pd.DataFrame(values.values[:, meaningful(analysis, measure)], index=analysis.step.values)
        by_rule.setdefault(str(analysis.attrs.get("rule", "unknown")), []).append(rows.mean(axis=1))
    lines = [line for rule, series in by_rule.items() for line in average(rule, look(rule), series)]
    return curves(lines, title=f"Mean {measure_title(analyses[0][measure])}", ax=ax)


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    x_label: str = "training step",
    log: bool = False,
    events: Sequence[Event] = (),
    steps: NDArray[Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw named curves with their key below; a logarithmic axis leaves out values of 0 or less.

    ``steps`` are the snapshots of a run, whose other charts then have the same axis of steps.
    """
    with canvas(ax) as axes:
        named: set[str] = set()
        heights = np.concatenate([np.ravel(line.y) for line in lines]) if log else np.empty(0)
        positive = log_axis(axes.yaxis, heights)
        for line in lines:
            x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
            y = np.where(y > 0, y, np.nan) if positive else y
            known = np.flatnonzero(np.isfinite(y))
            axes.plot(
                x, y, "--" if line.dashed else "-", color=line.look.color, marker=line.look.marker,
                markevery=known[spread(len(known), 9)].tolist(), ms=0 if len(x) > 60 and line.dashed else 3.5,
                label=short(line.name, 24) if line.name not in named else None, gid=line.gid,
            )  # fmt: skip
            named.add(line.name)
            if line.low is not None and line.high is not None:
                low, high = (np.asarray(edge, dtype=float) for edge in (line.low, line.high))
                axes.fill_between(x, low, high, color=line.look.color, alpha=0.18, lw=0)
        mark(axes, events)
        if len(named) > 1:
            names_key(axes, 4 if max(map(len, named)) < 10 else 3)
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(x_label)
        places = sorted({float(x) for line in lines for x in np.ravel(line.x)})
        if steps is not None:
            steps_axis(axes, steps, [*places, *near(events, steps)])
            return axes
        axes.xaxis.set_gid("step" if x_label == "training step" else None)
        whole = all(place.is_integer() for place in places)
        axes.xaxis.set_major_locator(FixedLocator(places) if len(places) == 1 else MaxNLocator(6, integer=whole))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    return axes
