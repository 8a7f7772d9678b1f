"""What a drawn panel says to a hand that points at it: where its values lie, read from the panel itself.

Artists tell by their gid what they show, as `reports.figures` says. Positions are in the units of the panel's SVG.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Panel
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from reports.axes import spread
from reports.content import Figure, Frames

SUBJECT = re.compile(r"(?:layer|run)-(\d+)(?::\w+)?")
"""Gid of what is of one layer or run; the group is its index."""
_SVG_DPI = 72.0
_MOST, _MOST_MOVING = 400, 120  # points of a line that can be pointed at; a line that moves has them at every step


class Arrays:
    """Lists of numbers, each held once: charts share their steps and many of their values."""

    def __init__(self) -> None:
        self.lists: list[list[float | None]] = []
        self._index: dict[tuple[float | None, ...], int] = {}

    def put(self, values: ArrayLike, decimals: int | None = None) -> int:
        """Give the place of some numbers, rounded to ``decimals`` or else to six significant digits."""
        form = ".6g" if decimals is None else f".{decimals}f"
        key = tuple(_plain(value, form) for value in np.asarray(values, dtype=float).tolist())
        if key not in self._index:
            self._index[key] = len(self.lists)
            self.lists.append(list(key))
        return self._index[key]


def charts(figure: Figure, arrays: Arrays) -> list[dict[str, Any] | None]:
    """Describe each panel of a figure; None where there is nothing to point at.

    The figure must have been drawn (`Figure.svgs`), for only then its layout is settled.
    """
    frames: Sequence[Frames] = figure.frames or ({},) * len(figure.panels)
    return [_chart(panel, moves, arrays) for panel, moves in zip(figure.panels, frames, strict=True)]


def _chart(panel: Panel, frames: Frames, arrays: Arrays) -> dict[str, Any] | None:
    parts = [part for axes in panel.axes if axes.get_label() != "<colorbar>" for part in [_axes(axes, frames, arrays)]]
    return next((part for part in parts if part["lines"] or part["rows"]), None)


def _axes(axes: Axes, frames: Frames, arrays: Arrays) -> dict[str, Any]:
    along = {"x": axes.xaxis.get_gid(), "y": axes.yaxis.get_gid()}
    upright = along["y"] is None or along["x"] is not None  # positions run along x, values along y
    box = _to_svg(axes, axes.transAxes.transform([(0, 1), (1, 0)]))
    chart: dict[str, Any] = {
        "box": [round(float(value), 1) for value in box.ravel()],
        "title": axes.get_title(loc="left") or axes.get_title() or axes.get_xlabel(),
        "along": (along["x"] if upright else along["y"]) or "",
        "label": axes.get_xlabel() if upright else axes.get_ylabel(),
        "upright": upright,
        "subject": _subject(axes.get_gid()),
        "lines": [],
        "rows": [],
    }
    if axes.images:
        image: NDArray[Any] = np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan)
        return chart | {"rows": [arrays.put(row) for row in image]}
    for line in axes.lines:
        if gid := line.get_gid():
            x, y = (np.asarray(values, dtype=float) for values in line.get_data())
            chart["lines"].append(_line(axes, gid, line, (x, y), upright, frames, arrays))
    bars = [bar for bar in axes.patches if _subject(bar.get_gid()) is not None]
    if bars:
        places = [_subject(bar.get_gid()) for bar in bars]
        values = [bar.get_width() if not upright else bar.get_height() for bar in bars]  # type: ignore[attr-defined]
        ends = (places, values) if upright else (values, places)
        pair = tuple(np.asarray(end, dtype=float) for end in ends)
        chart["lines"].append(_line(axes, "bars", None, (pair[0], pair[1]), upright, {}, arrays))
    return chart


def _line(
    axes: Axes,
    gid: str,
    line: Line2D | None,
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    upright: bool,
    frames: Frames,
    arrays: Arrays,
) -> dict[str, Any]:
    """Describe a line; ``frames`` hold its values at other steps than the one drawn."""
    x, y = points
    at, values = (x, y) if upright else (y, x)
    kept = spread(len(at), _MOST_MOVING if gid in frames else _MOST)
    at, values = at[kept], values[kept]
    label = str(line.get_label()) if line else ""
    told: dict[str, Any] = {
        "id": gid,
        "subject": _subject(gid),
        "name": "" if label.startswith("_") else label,
        "part": gid.partition(":")[2],
        "at": arrays.put(at),
        "px": arrays.put(_position(axes, at, 0 if upright else 1), 1),
        "values": arrays.put(values),
        "py": arrays.put(_position(axes, values, 1 if upright else 0), 1),
    }
    if gid in frames:
        moves = np.asarray(frames[gid], dtype=float)[:, kept]
        told["frames"] = [arrays.put(row) for row in moves]
        told["frames_py"] = [arrays.put(_position(axes, row, 1 if upright else 0), 1) for row in moves]
    return told


def _position(axes: Axes, values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Give where values lie along one axis of the SVG; NaN for those that a logarithmic axis lacks."""
    low = axes.viewLim.min
    pairs = np.tile(np.asarray(low, dtype=float), (len(values), 1))
    pairs[:, axis] = values
    with np.errstate(all="ignore"):
        return np.asarray(_to_svg(axes, axes.transData.transform(pairs))[:, axis])


def _to_svg(axes: Axes, pixels: NDArray[Any]) -> NDArray[np.float64]:
    figure = axes.get_figure(root=True)
    assert figure is not None
    scaled = np.asarray(pixels, dtype=float) * _SVG_DPI / figure.dpi
    return np.column_stack([scaled[:, 0], figure.get_figheight() * _SVG_DPI - scaled[:, 1]])


def _subject(gid: str | None) -> int | None:
    found = SUBJECT.fullmatch(gid or "")
    return int(found[1]) if found else None


def _plain(value: float, form: str) -> float | None:
    return float(format(value, form)) if np.isfinite(value) else None
