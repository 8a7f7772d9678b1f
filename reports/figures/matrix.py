"""A matrix of coloured cells with numbers in them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from wtdiag.reports.figures.axes import canvas
from wtdiag.reports.figures.style import MAGNITUDE, MISSING, short

_DARK, _LIGHT = "#101216", "#fbfcfe"  # on a cell's colour, which is the same in both themes


def matrix(
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw values as coloured cells with a text in each; cells without a value are grey."""
    with canvas(ax) as axes:
        axes.set_facecolor(MISSING)
        finite = values[np.isfinite(values)]
        norm = Normalize(finite.min(initial=0.5), finite.max(initial=1.0))
        axes.pcolormesh(np.ma.masked_invalid(values), cmap=MAGNITUDE, norm=norm, edgecolors="none")
        size = 7 if len(columns) < 7 else 5.5
        for (row, column), value in np.ndenumerate(values):
            light = np.isfinite(value) and norm(value) < 0.5
            axes.text(
                column + 0.5, row + 0.5, texts[row][column], ha="center", va="center", fontsize=size,
                color=_LIGHT if light else _DARK, parse_math=False,
            )  # fmt: skip
        axes.set_xticks(
            np.arange(len(columns)) + 0.5, [textwrap.fill(short(name, 28), 14) for name in columns], parse_math=False
        )
        axes.set_yticks(np.arange(len(rows)) + 0.5, [short(name, 20) for name in rows], parse_math=False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        for edge in range(1, len(rows)):
            axes.axhline(edge, color="white", lw=1)
        for edge in range(1, len(columns)):
            axes.axvline(edge, color="white", lw=1)
        axes.set_title(title, parse_math=False, pad=8)
    return axes
