"""The table of claims for a terminal, at most 80 columns wide."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from wtdiag.diagnostics.claims.base import points
from wtdiag.diagnostics.claims.verdicts import NOT_SEEN, SEEN, Result
from wtdiag.probes.errors import printable

_STYLES = {SEEN: "green", NOT_SEEN: "red"}


def claims_table(results: Iterable[Result]) -> Table:
    """Return a table of claims: statistic and 95 % interval in points, number of seeds or trials, and verdict."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("claim")
    for column in ("points", "95 % interval", "n"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    for each in results:
        name, verdict = (
            Text(printable(each.name + each.on), overflow="fold"),
            Text(each.verdict, _STYLES.get(each.verdict, "")),
        )
        shown.add_row(name, *numbers(each), verdict)
    return shown


def numbers(result: Result) -> tuple[str, str, str]:
    """Return value, interval and count of a result as text; differences are in percentage points.

    Examples
    --------
    >>> numbers(Result("sa-matches-bp-deep", "", "", "", -0.004, -0.011, 0.003, 5, 0.02, "seen", ""))
    ('−0.4', '−1.1 to 0.3', '5')
    """
    interval = "–" if math.isnan(result.low) else f"{points(result.low)} to {points(result.high)}"
    return points(result.value), interval, str(result.n or "–")
