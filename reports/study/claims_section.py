"""The papers' claims: a table of verdicts, and a section on why each came out so and how it is decided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wtdiag.diagnostics.analysis.sentences import counted, listed
from wtdiag.diagnostics.claims import CLAIMS, VERDICTS, Result
from wtdiag.diagnostics.claims.base import points
from wtdiag.diagnostics.claims.table import numbers
from wtdiag.reports.document.content import Block, Figure, Section, Table, Term, Terms
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import MUTED, Look, printable

_MARKS = dict(zip(VERDICTS, "✓✗?–", strict=True))  # told apart by their shapes
_LOOKS = dict(
    zip(VERDICTS, (Look("#0072b2", "o"), Look("#d55e00", "X"), Look(MUTED, "D"), Look(MUTED, ".")), strict=True)
)


def blocks(results: Sequence[Result]) -> tuple[Block, ...]:
    """Tabulate claims with their statistics and verdicts; return no block if there is no claim."""
    if not results:
        return ()
    rows = tuple((_sentence(each), f"{_MARKS[each.verdict]} {each.verdict}", *numbers(each)) for each in results)
    table = Table(
        "The claims of the papers, and what was seen here. Each claim is decided by one statistic, in percentage "
        "points of accuracy or of configurations, with its 95 % interval over what was drawn: seeds and test examples, "
        "configurations or trials. A verdict holds for this task and scale only; why each came out so stands under "
        "“How claims are decided”.",
        ("claim", "verdict", "points", "95 % interval", "seeds or trials"),
        rows,
        labels=2,
    )
    return (table, *_forest(results))


def _forest(results: Sequence[Result]) -> tuple[Figure, ...]:
    """Draw the statistics of claims with their intervals over what is claimed; no figure for fewer than two."""
    decided = {printable(each.name + each.on): each for each in results if math.isfinite(each.low + each.high)}
    if len(decided) < 2:
        return ()
    triples = {name: (100 * each.value, 100 * each.low, 100 * each.high) for name, each in decided.items()}
    panel = sized.forest(
        triples,
        {name: _claimed(each) for name, each in decided.items() if each.name in CLAIMS},
        [_LOOKS[each.verdict] for each in decided.values()],
        title="Statistic of each claim (points)",
    )
    figure = Figure(
        panels=(panel,),
        caption="Where each claim lies: its statistic with the 95 % interval, over the range that is claimed, which is "
        "grey. A claim is seen (circle) if its interval lies wholly inside, not seen (cross) if it lies wholly "
        "outside, and else undecided (diamond), or for a reason that its row under “How claims are decided” tells. "
        "The axis is linear up to 5 points.",
        alt=said(results),
        data=Table(
            "The numbers drawn, in points.",
            ("claim", "value", "from", "to", "threshold"),
            tuple((name, *map(points, (e.value, e.low, e.high, e.threshold))) for name, e in decided.items()),
        ),
        name="claims",
    )
    return (figure,)


def _claimed(result: Result) -> tuple[float, float]:
    """Return the range, in points, in which a claim says that its statistic lies."""
    at = 100 * result.threshold
    return {"above": (at, math.inf), "below": (-math.inf, at), "within": (-at, at)}[CLAIMS[result.name].direction]


def _sentence(result: Result) -> str:
    """Return a claim with what it was decided on, if the study has several networks."""
    return printable(f"{result.claim.removesuffix('.')}{result.on}.")


def decisions(results: Sequence[Result]) -> tuple[Section, ...]:
    """Tell for each claim why it came out so, how it is decided and which paper makes it; no section if there is none.

    A claim that was decided on several networks is explained once, with a reason for each of them.
    """
    terms = []
    for name in dict.fromkeys(each.name for each in results):
        here = [each for each in results if each.name == name]
        details = [
            (f"{_MARKS[each.verdict]} {each.verdict.removesuffix(' at this scale')}", printable(each.why))
            for each in here
        ]
        details += [("statistic", printable(each)) for each in dict.fromkeys(each.statistic for each in here)]
        if claim := CLAIMS.get(name):
            details += [("decision", claim.decision), ("threshold", claim.reason), ("claimed by", claim.paper)]
        terms.append(Term(claim.sentence if claim else printable(here[0].claim), tuple(details)))
    return (Section("How claims are decided", (Terms(tuple(terms)),)),) if terms else ()


def said(results: Sequence[Result]) -> str:
    """Count the verdicts in a sentence; return "" if there is no claim."""
    if not results:
        return ""
    counts = {verdict: sum(each.verdict == verdict for each in results) for verdict in VERDICTS}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return f"Of {counted(len(results), 'verdict')} on the papers' claims, {listed(parts)}."
