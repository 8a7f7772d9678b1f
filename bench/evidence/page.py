"""Tables on the pages of the documentation, which the scripts that measure them write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wtdiag.probes.records.files import write_aside

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table.

    Examples
    --------
    >>> print(table(["sign", "caught"], [["S > 1", 38]]))
    | sign | caught |
    |---|---|
    | S > 1 | 38 |
    """
    lines = [heads, ["---"] * len(heads), *rows]
    text = ("|".join(f" {cell} " if line is not lines[1] else str(cell) for cell in line) for line in lines)
    return "\n".join(f"|{line}|" for line in text)


def fill(page: str, name: str, text: str) -> None:
    """Write ``text`` into a page of docs/, between the comments ``<!-- name -->`` and ``<!-- end of name -->``."""
    path = DOCS / page
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8")
    new, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{text}\n\n{end}", old, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{path}: expected the comments {begin} and {end} once, found them {count} times")
    with write_aside(path) as aside:
        aside.write_text(new, encoding="utf-8")
