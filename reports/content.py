"""What a report says, free of any page format: built once, rendered by `reports.html` and `reports.pdf`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure as Panel

from reports.style import to_svg


@dataclass(frozen=True)
class Text:
    """One paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to be copied as it stands, such as a command, and what it is."""

    label: str
    text: str


@dataclass(frozen=True)
class Table:
    """Formatted cells under column heads; the first ``labels`` columns are words, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1


@dataclass(frozen=True)
class Figure:
    """One or more panels under one caption.

    ``alt`` states the result in words for those who do not see the panels; ``data`` holds the numbers drawn.
    """

    panels: tuple[Panel, ...]
    caption: str
    alt: str
    data: Table

    @cached_property
    def svgs(self) -> tuple[str, ...]:
        """The panels as SVG documents, drawn once for all page formats."""
        return tuple(to_svg(panel) for panel in self.panels)


@dataclass(frozen=True)
class Term:
    """A term and its labelled explanations."""

    name: str
    details: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Terms:
    """A list of terms explained."""

    terms: tuple[Term, ...]


Block = Text | Code | Table | Figure | Terms


@dataclass(frozen=True)
class Section:
    """A headed sequence of blocks."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report: its title, its result in one sentence, its sections."""

    title: str
    verdict: str
    sections: tuple[Section, ...]
