"""The papers' claims as a table: what was measured for each, the verdict, and why."""

from __future__ import annotations

from collections.abc import Sequence

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.diagnostics.claims import CLAIMS, VERDICTS, Result
from wtdiag.diagnostics.claims.table import numbers
from wtdiag.reports.document.content import Block, Section, Table, Term, Terms
from wtdiag.reports.figures.style import printable
from wtdiag.reports.study.shared import counted

_MARKS = dict(zip(VERDICTS, "✓✗?–", strict=True))  # told apart by their shapes


def blocks(results: Sequence[Result]) -> tuple[Block, ...]:
    """Tabulate claims with their statistics and verdicts, then explain each; return no block if there is no claim."""
    if not results:
        return ()
    rows = tuple((_sentence(each), f"{_MARKS[each.verdict]} {each.verdict}", *numbers(each)) for each in results)
    table = Table(
        "The claims of the papers, and what was seen here. Each claim is decided by one statistic, in percentage "
        "points of accuracy or of configurations, with its 95 % interval over what was drawn: seeds and test examples, "
        "configurations or trials. A verdict holds for this task and scale only.",
        ("claim", "verdict", "points", "95 % interval", "seeds or trials"),
        rows,
        labels=2,
    )
    return table, Terms(tuple(Term(f"{_MARKS[each.verdict]} {_sentence(each)}", _why(each)) for each in results))


def _sentence(result: Result) -> str:
    """Return a claim with what it was decided on, if the study has several networks."""
    return printable(f"{result.claim.removesuffix('.')}{result.on}.")


def decisions(results: Sequence[Result]) -> tuple[Section, ...]:
    """Tell for each claim how it is decided and which paper makes it; return no section if there is no claim."""
    known = [CLAIMS[name] for name in dict.fromkeys(each.name for each in results) if name in CLAIMS]
    if not known:
        return ()
    terms = tuple(
        Term(claim.sentence, (("decision", claim.decision), ("threshold", claim.reason), ("claimed by", claim.paper)))
        for claim in known
    )
    return (Section("How claims are decided", (Terms(terms),)),)


def said(results: Sequence[Result]) -> str:
    """Count the verdicts in a sentence; return "" if there is no claim."""
    if not results:
        return ""
    counts = {verdict: sum(each.verdict == verdict for each in results) for verdict in VERDICTS}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return f"Of {counted(len(results), 'verdict')} on the papers' claims, {listed(parts)}."


def _why(result: Result) -> tuple[tuple[str, str], ...]:
    return ("why", printable(result.why)), ("statistic", printable(result.statistic))
