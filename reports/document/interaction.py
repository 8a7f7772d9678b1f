"""Data for interactive charts: the values of a drawn panel and their positions, read from the panel itself.

The gid of an artist tells what it shows; `reports.figures.plot` describes the gids. Positions are in the units of the
panel's SVG.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as Panel
from matplotlib.patches import Rectangle
from matplotlib.scale import SymmetricalLogTransform
from numpy.typing import ArrayLike, NDArray

from wtdiag.reports.document.content import Figure, Frames
from wtdiag.reports.figures.axes import spread

SUBJECT = re.compile(r"(?:layer|run)-(\d+)(?::\w+)?")
"""Gid of an artist that shows one layer or run; the group is the index of the layer or run."""

_SVG_DPI = 72.0
_MOST = {"step": 400, "mode": 120}  # the most points of a line that respond to the pointer, except for subjects' lines
_MOST_MOVING = 6000  # the same for a line that changes with the step, over all its steps

_Points = NDArray[np.float64]


class Arrays:
    """Lists of numbers, each stored once, because charts share their steps and many of their values."""

    def __init__(self) -> None:
        self.lists: list[list[float | None]] = []
        self._index: dict[tuple[float | None, ...], int] = {}

    def put(self, values: ArrayLike, form: str = ".6g") -> int:
        """Store numbers, rounded as the format says, and return their place; None stands for non-finite numbers."""
        rounded = (float(format(value, form)) for value in np.asarray(values, dtype=float).tolist())
        key = tuple(value if np.isfinite(value) else None for value in rounded)
        if key not in self._index:
            self._index[key] = len(self.lists)
            self.lists.append(list(key))
        return self._index[key]


def charts(figure: Figure, arrays: Arrays) -> list[dict[str, Any] | None]:
    """Describe each panel of a figure, with None for a panel that has no values to show.

    The figure must have been drawn (`Figure.svgs`), because only then is its layout settled.
    """
    frames: Sequence[Frames] = figure.frames or ({},) * len(figure.panels)
    return [_chart(panel, moves, arrays) for panel, moves in zip(figure.panels, frames, strict=True)]


def _chart(panel: Panel, frames: Frames, arrays: Arrays) -> dict[str, Any] | None:
    """Describe the first axes of a panel that hold any values; colour bars do not count."""
    read = (_Reader(axes, frames, arrays).chart() for axes in panel.axes if axes.get_label() != "<colorbar>")
    return next((chart for chart in read if chart["lines"] or chart["rows"]), None)


@dataclass
class _Reader:
    """Reader of what one pair of axes shows; ``frames`` hold its lines' values at other steps than the one drawn."""

    axes: Axes
    frames: Frames
    arrays: Arrays

    def __post_init__(self) -> None:
        across, down = self.axes.xaxis.get_gid(), self.axes.yaxis.get_gid()
        self.upright = across is not None or down is None  # positions run along x, values along y
        self.along = (across if self.upright else down) or ""

    def chart(self) -> dict[str, Any]:
        axes = self.axes
        box = self._to_svg(axes.transAxes.transform([(0, 1), (1, 0)]))
        return {
            "box": [round(float(value), 1) for value in box.ravel()],
            "title": axes.get_title(loc="left"),
            "along": self.along,
            "label": axes.get_xlabel() if self.upright else axes.get_ylabel(),
            "upright": self.upright,
            "subject": _subject(axes.get_gid()),
            "lines": list(self._lines()),
            "rows": [self.arrays.put(np.ma.filled(row, np.nan)) for row in self._cells()],
            "edges": [round(float(x), 2) for x in self._edges()],
            "axis": self._axis(),
        }

    def _map(self) -> QuadMesh | None:
        return next((each for each in self.axes.collections if isinstance(each, QuadMesh)), None)

    def _cells(self) -> Any:
        mesh = self._map()
        return () if mesh is None else np.ma.asarray(mesh.get_array())

    def _edges(self) -> Any:
        """Return the positions of the edges of a map's columns."""
        mesh = self._map()
        if mesh is None:
            return ()
        row = np.asarray(mesh.get_coordinates())[0]
        return self._to_svg(self.axes.transData.transform(row))[:, 0]

    def _axis(self) -> list[float] | None:
        """Return how an axis of steps is laid out: its ends, and the step up to which it is linear, 0 if it all is.

        The page repeats this layout when a reader zooms, and replaces it when a reader wants a linear axis.
        """
        if self.along != "step":
            return None
        scale = self.axes.xaxis.get_transform()
        linear_to = float(scale.linthresh) if isinstance(scale, SymmetricalLogTransform) else 0.0
        return [*map(float, self.axes.get_xlim()), linear_to]

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self.axes.lines:
            if gid := line.get_gid():
                x, y = (np.asarray(values, dtype=float) for values in line.get_data())
                label = str(line.get_label())
                yield self._line(gid, "" if label.startswith("_") else label, *((x, y) if self.upright else (y, x)))
        bars = [bar for bar in self.axes.patches if isinstance(bar, Rectangle) and _subject(bar.get_gid()) is not None]
        if bars:
            places = np.array([_subject(bar.get_gid()) for bar in bars], dtype=float)
            lengths = [bar.get_height() if self.upright else bar.get_width() for bar in bars]
            yield self._line("bars", "", places, np.array(lengths, dtype=float))

    def _line(self, gid: str, name: str, at: _Points, values: _Points) -> dict[str, Any]:
        subject = _subject(gid)
        most = _MOST.get(self.along, len(at)) if subject is None else len(at)
        if self.along == "mode" and gid in self.frames:
            most = min(most, max(16, _MOST_MOVING // len(self.frames[gid])))
        kept = spread(len(at), most)
        description: dict[str, Any] = {
            "id": gid,
            "subject": subject,
            "name": name,
            "part": gid.partition(":")[2],
            "at": self.arrays.put(at[kept]),
            "px": self._put_places(at[kept], 0 if self.upright else 1),
            "values": self.arrays.put(values[kept]),
            "py": self._put_places(values[kept], 1 if self.upright else 0),
        }
        if gid in self.frames:
            frames = np.asarray(self.frames[gid], dtype=float)[:, kept]
            description["frames"] = [self.arrays.put(row) for row in frames]
            description["frames_py"] = [self._put_places(row, 1 if self.upright else 0) for row in frames]
        return description

    def _put_places(self, values: _Points, axis: int) -> int:
        """Store the positions of values along one axis of the SVG; None for those that a logarithmic axis lacks."""
        pairs = np.tile(np.asarray(self.axes.viewLim.min, dtype=float), (len(values), 1))
        pairs[:, axis] = values
        with np.errstate(all="ignore"):
            return self.arrays.put(self._to_svg(self.axes.transData.transform(pairs))[:, axis], ".1f")

    def _to_svg(self, pixels: NDArray[Any]) -> _Points:
        figure = self.axes.get_figure(root=True)
        assert figure is not None
        scaled = np.asarray(pixels, dtype=float) * _SVG_DPI / figure.dpi
        return np.column_stack([scaled[:, 0], figure.get_figheight() * _SVG_DPI - scaled[:, 1]])


def _subject(gid: str | None) -> int | None:
    match = SUBJECT.fullmatch(gid or "")
    return int(match[1]) if match else None
