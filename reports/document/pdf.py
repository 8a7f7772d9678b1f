"""A report as a PDF, typeset by typst."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst
from matplotlib.ft2font import FT2Font

from wtdiag.probes.errors import check_one_of
from wtdiag.reports.document.content import Report, code_in
from wtdiag.reports.figures.style import short

_FOLDER = Path(mpl.get_data_path(), "fonts", "ttf")  # the fonts that the figures were laid out with
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf")


PAPERS = {"a4": "a4", "letter": "us-letter"}
"""Paper sizes, and the names that typst has for them."""


def render(report: Report, paper: str = "a4") -> bytes:
    """Return a report as a PDF; the same report gives the same bytes.

    All text from a run is passed as JSON and set as text, so that none of it is read as typst markup. The fonts are
    those that come with typst and matplotlib, on every machine, and stand in for one another; a character that they
    lack is printed as `drawable` writes it.

    Raises
    ------
    InputError
        If the paper size is not known.
    """
    check_one_of("paper", paper, PAPERS)
    return bytes(typeset(report, paper, format="pdf"))


def typeset(report: Report, paper: str, **options: Any) -> Any:
    """Typeset a report by typst; ``options`` give the output format."""
    content = {
        "paper": PAPERS[paper],
        "title": report.title,
        "header": short(report.title, 80),
        "headline": report.headline,
        "health": report.health,
        "verdict": marked(report.verdict),
        "sections": [
            {"title": section.title, "blocks": [_marked(block.plain()) for block in section.blocks]}
            for section in report.sections
        ],
    }
    template = resources.files(__package__).joinpath("templates", "report.typ").read_bytes()
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[_FOLDER / name for name in _FONTS])
    return typst.compile(
        template,
        font_paths=fonts,
        # Also in the figures: their text travels as SVG.
        sys_inputs={"report": _escape(json.dumps(content, ensure_ascii=False), r"\\")},
        **options,
    )


def marked(text: str) -> list[dict[str, Any]]:
    """Return a text in parts, each with whether it is code.

    Examples
    --------
    >>> marked("Give --against.")[1]
    {'text': '--against', 'code': True}
    """
    return [{"text": part, "code": code} for part, code in code_in(text)]


def _marked(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block whose running texts are parts."""
    match block:
        case {"kind": "text", "text": text}:
            return {**block, "text": marked(text)}
        case {"caption": caption}:
            return {**block, "caption": marked(caption)}
        case {"entries": entries}:
            return {**block, "entries": [_details(entry, summary=marked(entry["summary"])) for entry in entries]}
        case {"terms": terms}:
            return {**block, "terms": [_details(term) for term in terms]}
    return block


def _details(entry: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {**entry, **others, "details": [(label, marked(text)) for label, text in entry["details"]]}


def drawable(text: str) -> str:
    r"""Return a text with those characters escaped, as Python does, that the PDF's fonts cannot draw.

    Examples
    --------
    >>> drawable("fc1 ⟨B, W⟩ ≤ 90°"), drawable("重み")
    ('fc1 ⟨B, W⟩ ≤ 90°', '\\u91cd\\u307f')
    """
    return _escape(text, "\\")


def _escape(text: str, backslash: str) -> str:
    def written(match: re.Match[str]) -> str:
        return match[0].encode("unicode_escape").decode("ascii").replace("\\", backslash)

    return _missing().sub(written, text)


@cache
def _missing() -> re.Pattern[str]:
    """Return the pattern of a character that the font which stands in for all others lacks."""
    known = "".join(map(chr, FT2Font(str(_FOLDER / _FONTS[0])).get_charmap()))
    return re.compile(f"[^{re.escape(known)}\\s]")
