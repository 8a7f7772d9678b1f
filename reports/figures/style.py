"""Style of the reports: colours, fonts, labels and numbers, and the drawing of a figure as an SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from zlib import crc32

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from wtdiag.probes.errors import printable as printable

HALF, THIRD = 3.35, 2.2  # panel widths in inches: two or three to a line of A4
_DPI = 150  # of maps; the rest is lines

# Colours that a page may replace to suit its theme; see `reports.document.html`.
INK, MUTED, GRID, BAND, MISSING = "#1f2430", "#667085", "#e2e5ea", "#d3d7de", "#c3c8d1"


class Look(NamedTuple):
    """Colour and marker of a rule, the same in every figure of every report."""

    color: str
    marker: str


# The contrast is at least 3:1 on white and on the dark page. Markers tell apart what hues may not.
LOOKS = {
    "bp": Look("#7f7f7f", "o"),
    "fa": Look("#d55e00", "s"),
    "usf": Look("#009e73", "^"),
    "brsf": Look("#6f9a00", "v"),
    "frsf": Look("#b8860b", "<"),
    "dfa": Look("#d6456b", ">"),
    "drtp": Look("#a0694f", "D"),
    "kp": Look("#0072b2", "P"),
    "wm": Look("#1f9ac9", "X"),
    "wm-reg": Look("#4f8000", "h"),
    "ia": Look("#8a5cd6", "p"),
    "sa": Look("#c564b0", "d"),
    "aa": Look("#00939c", "*"),
}
TRAINING = Look(MUTED, "")  # for the training batch; the test set has the colour of the rule
_OTHERS = (Look("#8c8436", "o"), Look("#a55a7e", "s"), Look("#5d86a3", "^"))

# From the first to the last layer, with even lightness, so that every layer is visible in both themes.
DEPTH = LinearSegmentedColormap.from_list("depth", ["#2a80c9", "#8a5cd6", "#cf4f8f", "#d9730d"])
# A pale colour is what chance gives; blue is aligned and red is opposed, purple is B too small and green B too large.
ALIGNMENT = mpl.colormaps["RdBu_r"]
RATIO = mpl.colormaps["PRGn"]
ON_DARK = {  # their counterparts on a dark page, where what chance gives is dark
    colors.name: mpl.colormaps[dark]
    for colors, dark in ((ALIGNMENT, "berlin"), (ALIGNMENT.reversed(), "berlin_r"), (RATIO, "vanimo"))
}
FEEDBACK, INHERITED = "#d9730d", "#2a80c9"  # B where it shares a panel with W (ink); the inherited error
MAGNITUDE = mpl.colormaps["cividis"]  # for measures without a neutral value
DIVERGED = "#c4384b"  # divergence, and the unstable side of a limit


def look(rule: str) -> Look:
    """Return the look of a rule; that of a rule which is not listed follows from its name.

    Examples
    --------
    >>> look("fa")
    Look(color='#d55e00', marker='s')
    >>> look("mine") == look("mine")
    True
    """
    return LOOKS.get(rule) or _OTHERS[crc32(rule.encode()) % len(_OTHERS)]


def distinct_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each name: a rule's own for its name, and for another one that no rule among them has.

    Examples
    --------
    >>> looks = distinct_looks(["kp", "kp decay=0.2", "fa"])
    >>> looks["kp"] == look("kp"), len(set(looks.values()))
    (True, 3)
    """
    taken = {LOOKS[name] for name in names if name in LOOKS}
    free = [each for each in LOOKS.values() if each not in taken]
    found = {}
    for name in names:
        own = name in LOOKS or not free
        found[name] = look(name) if own else free.pop(crc32(name.encode()) % len(free))
    return found


# seaborn's style "whitegrid"; to import it, with scipy.stats, takes a sixth of a report's time.
_WHITEGRID: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.bottom": True,
    "axes.spines.left": True,
    "grid.linestyle": "-",
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "xtick.bottom": False,
    "xtick.direction": "out",
    "xtick.top": False,
    "ytick.direction": "out",
    "ytick.left": False,
    "ytick.right": False,
}


def context() -> AbstractContextManager[None]:
    """Return a context with the settings of Matplotlib for building and drawing a panel."""
    return mpl.rc_context(
        {
            **_WHITEGRID,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.labelsize": 8,
            "axes.linewidth": 0.6,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 8,  # one size for all words of a figure; a title is bold
            "axes.titleweight": "bold",
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 8,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "image.interpolation": "none",
            "legend.fontsize": 8,
            "legend.frameon": False,
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
            "svg.fonttype": "none",  # text stays text, so it can be searched, and is drawn with the reader's own fonts
            "svg.hashsalt": "wtdiag",  # the same figure gives the same bytes
            "text.color": INK,
            "text.parse_math": False,  # a "$" in a layer's name is a dollar
            "xtick.color": MUTED,
            "xtick.labelcolor": INK,
            "xtick.labelsize": 8,
            "ytick.color": MUTED,
            "ytick.labelcolor": INK,
            "ytick.labelsize": 8,
        }
    )


def to_svg(figure: Figure) -> str:
    """Draw a figure as an SVG document, the same bytes for the same figure."""
    buffer, (canvas, dpi) = io.StringIO(), (figure.canvas, figure.dpi)
    with context(), warnings.catch_warnings():
        # Characters that the font of Matplotlib lacks are drawn with the fonts of the reader.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        svg = FigureCanvasSVG(figure)
        if (engine := figure.get_layout_engine()) is not None:
            figure.dpi = _DPI
            engine.execute(figure)  # `savefig` would go through the whole figure once more for this
            figure.set_layout_engine("none")
        figure.dpi = _DPI
        svg.print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    figure.set_canvas(canvas)
    figure.dpi = dpi
    return buffer.getvalue()


def short(text: str, length: int = 20) -> str:
    """Shorten a long name in its middle, because the ends tell layers apart.

    Examples
    --------
    >>> short("layer1.0.conv1")
    'layer1.0.conv1'
    >>> short("encoder.blocks.11.attention.output.dense")
    'encoder.bl…put.dense'
    """
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def sentence(text: str) -> str:
    """Return a text with a capital at the beginning and a full stop at the end.

    Examples
    --------
    >>> sentence("loss is NaN")
    'Loss is NaN.'
    """
    return f"{capital(text)}."


def capital(text: str) -> str:
    """Return a text with a capital at the beginning.

    Examples
    --------
    >>> capital("weight angle (°)")
    'Weight angle (°)'
    """
    return text[:1].upper() + text[1:]


def number(value: float, digits: int = 3) -> str:
    """Format a number with a number of significant digits; a number that is not finite becomes a dash.

    Examples
    --------
    >>> number(0.123456), number(-1.0), number(1234567.0), number(float("nan"))
    ('0.123', '−1.00', '1.23e+06', '–')
    """
    return _signed(f"{value:#.{digits}g}".rstrip(".")) if np.isfinite(value) else "–"


def fixed(value: float, decimals: int = 1, suffix: str = "") -> str:
    """Format a number with fixed decimals and the sign of its unit; a number that is not finite becomes a dash.

    Examples
    --------
    >>> fixed(12.345, suffix="°"), fixed(-0.04), fixed(-0.4), fixed(float("inf"))
    ('12.3°', '0.0', '−0.4', '–')
    """
    return _signed(f"{value:z.{decimals}f}{suffix}") if np.isfinite(value) else "–"


def _signed(text: str) -> str:
    """Return a number with the sign of typography, which is as wide as a plus."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def percent(fraction: float) -> str:
    """Format a fraction as a percentage.

    Examples
    --------
    >>> percent(0.9649) == "96.5" + chr(0xA0) + "%"
    True
    """
    return fixed(100 * fraction, suffix="\N{NO-BREAK SPACE}%")
