"""Cards for notebooks: a heading and a few rows as HTML, in the colours of the page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_ROW = '<tr><td style="text-align:left;vertical-align:top;opacity:.7">{}</td><td style="text-align:left">{}</td></tr>'


def card(title: str, subtitle: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a heading and rows of a name and a text as HTML; all texts are escaped, and rows without a text left out.

    Examples
    --------
    >>> card("runs/<b>", "finished", [("rule", "fa"), ("seed", "")])
    '<div><b>runs/&lt;b&gt;</b> finished<table>...fa...</table></div>'
    """
    shown = "".join(_ROW.format(escape(name), escape(text)) for name, text in rows if text)
    return f"<div><b>{escape(title)}</b> {escape(subtitle)}<table>{shown}</table></div>"
