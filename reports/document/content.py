"""The content of a report, independent of any page format: it is built once, and `html` and `pdf` render it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap
from matplotlib.figure import Figure as Panel
from numpy.typing import NDArray

from wtdiag.reports.figures.style import HALF, ON_DARK, THIRD, to_svg

_SCREEN = {"screen": True}  # of fields that only a page on a screen can use


_CODE = re.compile(r"`((?:wtdiag|feedback)[^`\n]{0,80})`|(?<![\w-])(--[a-z][a-z-]+(?: [a-z0-9]+(?=[ ,.;)]|$))?)")
# A command or a parameter between backticks, or an option with its value, such as --rule bp; backticks in names that
# come from a run stay as they are.


def code_in(text: str) -> list[tuple[str, bool]]:
    """Return a text in parts, each with whether it is code: what stands between backticks, or an option.

    Examples
    --------
    >>> code_in("Give it to `wtdiag analyze` with --against.")
    [('Give it to ', False), ('wtdiag analyze', True), (' with ', False), ('--against', True), ('.', False)]
    """
    parts, end = list[tuple[str, bool]](), 0
    for match in _CODE.finditer(text):
        parts += [(text[end : match.start()], False), (match[1] or match[2], True)]
        end = match.end()
    return [part for part in (*parts, (text[end:], False)) if part[0]]


@dataclass(frozen=True)
class Block:
    """A piece of a section. A new kind is a dataclass here, and in each template how a block of its name is shown."""

    @property
    def kind(self) -> str:
        """Name of its kind, under which each template defines how it is shown."""
        return type(self).__name__.lower()

    def plain(self) -> dict[str, Any]:
        """Return what is printed of it, as plain data; what only a screen can use is left out."""
        printed = {each.name: getattr(self, each.name) for each in fields(self) if not each.metadata.get("screen")}
        return {"kind": self.kind} | {name: _plain(value) for name, value in printed.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int) else asdict(value)


@dataclass(frozen=True)
class Text(Block):
    """One paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Code(Block):
    """Text to be copied as it stands, such as a command, with a label that says what it is."""

    label: str
    text: str


@dataclass(frozen=True)
class Number:
    """A number that sums something up, with its label and a note on how to read it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Numbers(Block):
    """The few numbers that a reader sees first."""

    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Entry:
    """A finding in words.

    Attributes
    ----------
    severity : str
        One of `diagnostics.findings.finding.SEVERITIES`.
    kind, where, summary : str
        Its kind, its layer and steps, and the finding as a sentence.
    details : tuple of (label, text)
        The numbers it rests on, what it means, what to try, and the sources.
    command : str
        The command that makes the run again as advised; "" if there is none.
    figure : str
        Name of the figure that shows it; "" if none does.
    """

    severity: str
    kind: str
    where: str
    summary: str
    details: tuple[tuple[str, str], ...]
    command: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Findings(Block):
    """The findings of a run, the most severe first."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Subjects:
    """The subjects of figures and tables, which a reader can pick: the layers of a run, the runs, or the rules.

    Attributes
    ----------
    name : str
        Unique in a report.
    kind : str
        "layer", "run" or "rule".
    names : tuple of str
        In figures, the lines of the i-th subject have the gid ``layer-i``, or ``run-i`` if they are runs or rules; in
        tables, see `Table.picks`.
    steps : tuple of int
        Snapshots that a reader can step through; empty if there is only one state to show.
    drawn : int
        Index of the step that the figures and the text show.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    steps: tuple[int, ...] = ()
    drawn: int = 0


@dataclass(frozen=True)
class Table(Block):
    """Formatted cells under column heads; the first ``labels`` columns are words, the others are numbers.

    If ``subjects`` are given, row i is about the ``picks[i]``-th of them.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    subjects: Subjects | None = field(default=None, metadata=_SCREEN)
    picks: tuple[int, ...] = field(default=(), metadata=_SCREEN)


Frames = Mapping[str, NDArray[np.float64]]
"""The values of a line at every step of the subjects, (step, point), by the line's gid."""


@dataclass(frozen=True)
class Figure(Block):
    """One or more panels under one caption.

    ``alt`` states the result in words for readers who cannot see the panels; ``data`` holds the numbers drawn.

    Attributes
    ----------
    name : str
        Unique in a report, so that findings can point to it.
    measures : tuple of str
        Variables of the analysis that are drawn.
    subjects : Subjects, optional
        The subjects that the gids of the panels count.
    frames : tuple of mappings
        For each panel, the values of its lines at other steps than the one drawn; may be empty.
    """

    panels: tuple[Panel, ...]
    caption: str
    alt: str
    data: Table
    name: str
    measures: tuple[str, ...] = ()
    subjects: Subjects | None = None
    frames: tuple[Frames, ...] = field(default=(), compare=False)

    @cached_property
    def svgs(self) -> tuple[str, ...]:
        """The panels as SVG documents, drawn once for all page formats."""
        return tuple(to_svg(panel) for panel in self.panels)

    @cached_property
    def maps(self) -> tuple[Colormap | None, ...]:
        """The colours of the map in each panel that has other ones on a dark page."""
        meshes = ([each for axes in panel.axes for each in axes.collections] for panel in self.panels)
        used = ([each.get_cmap() for each in meshes if isinstance(each, QuadMesh)] for meshes in meshes)
        return tuple(next((colors for colors in each if colors.name in ON_DARK), None) for each in used)

    @property
    def beside(self) -> bool:
        """Whether the last row of panels leaves room for the caption beside it."""
        widest = max(float(panel.get_figwidth()) for panel in self.panels)
        return widest <= HALF and len(self.panels) % (3 if widest <= THIRD else 2) > 0

    def plain(self) -> dict[str, Any]:
        """Return words and panels, each an SVG document with its width in inches."""
        widths = [float(panel.get_figwidth()) for panel in self.panels]
        panels = [{"svg": svg, "width": width} for svg, width in zip(self.svgs, widths, strict=True)]
        return {
            "kind": self.kind,
            "name": self.name,
            "caption": self.caption,
            "alt": self.alt,
            "panels": panels,
            "beside": self.beside,
        }


@dataclass(frozen=True)
class Term:
    """A term and its labelled explanations."""

    name: str
    details: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Terms(Block):
    """A list of terms with their explanations."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Section:
    """A sequence of blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes
    ----------
    title : str
        The run or the study that it reports on.
    verdict : str
        Its result, in a sentence or two.
    sections : tuple of Section
        Its content.
    health : str
        The severity of its worst finding, which colours the headline; "" for what was not diagnosed.
    headline : str
        How a run came out, in a few words that stand before the verdict.
    """

    title: str
    verdict: str
    sections: tuple[Section, ...]
    health: str = ""
    headline: str = ""
