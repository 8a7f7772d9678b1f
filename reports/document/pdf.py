"""A report as a PDF, set by typst."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst

from wtdiag.probes.errors import check_one_of
from wtdiag.reports.document.content import Block, Code, Figure, Findings, Numbers, Report, Table, Terms, Text
from wtdiag.reports.figures.style import short

_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf")


PAPERS = {"a4": "a4", "letter": "us-letter"}
"""Sizes of paper, and what typst calls them."""


def render(report: Report, paper: str = "a4") -> bytes:
    """Typeset a report; the same report gives the same bytes.

    Everything a run says travels as JSON and is set as text: no word of it is read as typst markup.

    Raises
    ------
    InputError
        If there is no such paper.
    """
    check_one_of("paper", paper, PAPERS)
    return bytes(typeset(report, paper, format="pdf"))


def typeset(report: Report, paper: str, **options: Any) -> Any:
    """Let typst set a report; ``options`` tell the format."""
    content = {
        "paper": PAPERS[paper],
        "title": report.title,
        "header": short(report.title, 80),
        "headline": report.headline,
        "health": report.health,
        "verdict": report.verdict,
        "sections": [
            {"title": section.title, "blocks": [_block(block) for block in section.blocks]}
            for section in report.sections
        ],
    }
    template = resources.files(__package__).joinpath("templates", "report.typ").read_bytes()
    folder = Path(mpl.get_data_path(), "fonts", "ttf")  # the fonts that the figures were laid out with
    fonts = typst.Fonts(font_paths=[folder / name for name in _FONTS])
    return typst.compile(
        template,
        font_paths=fonts,
        sys_inputs={"report": json.dumps(content)},
        **options,
    )


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"kind": "text", "text": text}
        case Code(label, text):
            return {"kind": "code", "label": label, "text": text}
        case Numbers(numbers):
            return {"kind": "numbers", "numbers": [vars(number) for number in numbers]}
        case Findings(entries):
            return {"kind": "findings", "entries": [vars(entry) for entry in entries]}
        case Table(caption, columns, rows, labels):
            return {"kind": "table", "caption": caption, "columns": columns, "rows": rows, "labels": labels}
        case Figure():
            widths = [float(panel.get_figwidth()) for panel in block.panels]
            panels = [{"svg": svg, "width": width} for svg, width in zip(block.svgs, widths, strict=True)]
            words = {"name": block.name, "caption": block.caption, "alt": block.alt}
            return {"kind": "figure", "panels": panels, **words}
        case Terms(terms):
            return {"kind": "terms", "terms": [vars(term) for term in terms]}
