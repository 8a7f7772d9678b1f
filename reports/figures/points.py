"""Panels of studies: means with their intervals, over levels, in groups and by method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from wtdiag.reports.figures.axes import canvas, names_key, plain, spread
from wtdiag.reports.figures.curves import Curve, curves
from wtdiag.reports.figures.style import GRID, INK, Look, fixed, short

Triple = tuple[float, float, float]
"""A mean and the ends of its interval, which are NaN if there is none."""

_NEAR = 5.0  # the end of the linear part of an axis, in points
_TICKS = (-5, -2, 0, 2, 5)


def levels(lines: Sequence[Curve], *, title: str, x_label: str, ax: Axes | None = None) -> Axes:
    """Draw curves over the levels of a factor, on a logarithmic axis if the levels lie far apart."""
    with canvas(ax) as axes:
        curves(lines, title=title, x_label=x_label, ax=axes)
        places = np.unique(np.concatenate([np.asarray(line.x, dtype=float) for line in lines]))
        positive = places[places > 0]
        if len(places) > 2 and len(positive) > 1 and places[0] >= 0 and positive[-1] >= 6 * positive[0]:
            if places[0] > 0:
                axes.set_xscale("log")
            else:
                axes.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.6)
        axes.xaxis.set_major_locator(FixedLocator([float(places[i]) for i in spread(len(places), 8)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(float(f"{value:.3g}"))))
    return axes


def groups(
    intervals: Mapping[str, Sequence[Triple]],
    looks: Sequence[Look],
    gids: Sequence[str],
    *,
    names: Sequence[str],
    title: str,
    x_label: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw means and intervals at named levels, with the methods side by side and a key below."""
    with canvas(ax) as axes:
        offsets = (np.arange(len(intervals)) - (len(intervals) - 1) / 2) * min(0.12, 0.72 / len(intervals))
        for (name, triples), drawn, gid, offset in zip(intervals.items(), looks, gids, offsets, strict=True):
            mean, low, high = np.array(triples, dtype=float).T
            places = np.arange(len(names)) + offset
            axes.vlines(places, low, high, colors=drawn.color, lw=1.1)
            axes.plot(places, mean, ls="", color=drawn.color, marker=drawn.marker, label=short(name, 24), gid=gid)
        if len(intervals) > 1:
            names_key(axes, 4 if max(map(len, intervals)) < 10 else 3)
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(x_label, parse_math=False)
        length = max(5, 44 // max(1, len(names)))
        axes.set_xticks(range(len(names)), [short(name, length) for name in names], parse_math=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(visible=False, axis="x")
    return axes


def dots(
    triples: Mapping[str, Triple],
    single: Mapping[str, ArrayLike],
    looks: Sequence[Look],
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw one row for each name, the first at the top: the mean with its interval, and as small dots its values."""
    with canvas(ax) as axes:
        for row, ((name, (mean, low, high)), drawn) in enumerate(zip(triples.items(), looks, strict=True)):
            values = np.asarray(single[name], dtype=float)
            if np.isfinite(values).sum() > 1:
                axes.plot(values, np.full(len(values), row + 0.25), ls="", marker=".", ms=2.5, color=drawn.color)
            axes.hlines(row, low, high, colors=drawn.color, lw=1.3)
            axes.plot(mean, row, ls="", marker=drawn.marker, ms=5, color=drawn.color)
        rows(axes, list(triples))
        axes.set_title(title, parse_math=False)
    return axes


def forest(
    triples: Mapping[str, Triple],
    claimed: Mapping[str, tuple[float, float]],
    looks: Sequence[Look],
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw one row for each name, the first at the top: a value with its interval, over the range that is claimed.

    Beyond ±5 the axis is logarithmic, because what matters are a few points, and some values are far away.
    """
    with canvas(ax) as axes:
        axes.set_xscale("symlog", linthresh=_NEAR, linscale=1.5)
        ends = np.array(list(triples.values()), dtype=float)
        reach = max(_NEAR, 1.5 * float(np.nanmax(np.abs(ends))))
        for row, ((name, (value, low, high)), drawn) in enumerate(zip(triples.items(), looks, strict=True)):
            if name in claimed:
                left, right = np.clip(claimed[name], -reach, reach)
                axes.barh(row, right - left, left=left, height=0.7, color=GRID, lw=0, zorder=0)
            axes.hlines(row, low, high, colors=drawn.color, lw=1.3)
            axes.plot(value, row, ls="", marker=drawn.marker, ms=5, color=drawn.color)
        rows(axes, list(triples), length=36)
        axes.set_xlim(-reach, reach)
        far = 50 if reach > 50 else 20
        axes.xaxis.set_major_locator(FixedLocator([-far, *_TICKS, far]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fixed(value, 0)))
        axes.set_title(title, parse_math=False)
    return axes


def by_row(
    values_of: Mapping[str, ArrayLike],
    looks: Sequence[Look],
    *,
    names: Sequence[str],
    title: str,
    x_label: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw one row for each of ``names`` with a mark for each method, and a key below."""
    with canvas(ax) as axes:
        offsets = (np.arange(len(values_of)) - (len(values_of) - 1) / 2) * min(0.2, 0.7 / len(values_of))
        for (name, values), drawn, offset in zip(values_of.items(), looks, offsets, strict=True):
            places = np.arange(len(names)) + offset
            axes.plot(values, places, ls="", color=drawn.color, marker=drawn.marker, label=short(name, 24))
        if len(values_of) > 1:
            names_key(axes, 4 if max(map(len, values_of)) < 10 else 3)
        rows(axes, names)
        for edge in range(1, len(names)):
            axes.axhline(edge - 0.5, color=GRID, lw=0.6)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(x_label, parse_math=False)
    return axes


def slices(
    points_of: Mapping[str, tuple[ArrayLike, ArrayLike]],
    looks: Sequence[Look],
    gids: Sequence[str],
    *,
    title: str,
    x_label: str,
    log: bool = False,
    names: Sequence[str] = (),
    level: float = np.nan,
    ax: Axes | None = None,
) -> Axes:
    """Draw single values over a parameter, a mark for each, without a key, and a dashed line at a level.

    ``names`` are the choices of a parameter that is not a number; its values are their indices.
    """
    with canvas(ax) as axes:
        for (x, y), drawn, gid in zip(points_of.values(), looks, gids, strict=True):
            axes.plot(x, y, ls="", color=drawn.color, marker=drawn.marker, mew=0, alpha=0.85, gid=gid)
        if np.isfinite(level):
            axes.axhline(level, color=INK, lw=0.8, ls=(0, (3, 2)))
        if names:
            axes.set_xticks(range(len(names)), [short(each, 8) for each in names], parse_math=False)
            axes.set_xlim(-0.5, len(names) - 0.5)
        elif log:
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 300 * low else (1.0,), numticks=6))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        if not names:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(x_label, parse_math=False)
    return axes


def key(looks: Mapping[str, Look], *, ax: Axes | None = None) -> Axes:
    """Draw the key alone, for panels that are too small to hold one."""
    with canvas(ax) as axes:
        handles: list[Any] = [
            axes.plot([], [], color=drawn.color, marker=drawn.marker, label=short(name, 18))[0]
            for name, drawn in looks.items()
        ]
        axes.set_axis_off()
        columns = -(-len(handles) // key_rows(looks))
        axes.legend(handles=handles, loc="upper left", ncols=columns, borderaxespad=0, columnspacing=1.0)
        axes.set_title("Key", parse_math=False)
    return axes


def key_rows(looks: Collection[Any]) -> int:
    """Return the number of rows in the key alone, which has two columns for many names."""
    return max(1, len(looks) if len(looks) < 8 else -(-len(looks) // 2))


def rows(axes: Axes, names: Sequence[str], length: int = 20) -> None:
    """Label the rows along the vertical axis, the first at the top, by names of at most some characters."""
    axes.set_yticks(range(len(names)), [short(name, length) for name in names], parse_math=False, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
