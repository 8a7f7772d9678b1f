"""Findings as a reader meets them: the worst first, alike ones together, each pointing to its figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wtdiag.diagnostics.findings.finding import SEVERITIES, Evidence, Finding
from wtdiag.reports.document.content import Entry, Figure, Findings
from wtdiag.reports.figures.style import capital, fixed, number
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_tables import degrees
from wtdiag.reports.run.sources import Source
from wtdiag.reports.run.summary import outcome

_MOST = 12  # names of layers that one finding lists


def health(source: Source) -> str:
    """Severity of the worst finding of a run, "" where it was not diagnosed."""
    found = [SEVERITIES.index(finding.severity) for finding in source.findings or ()]
    return SEVERITIES[min(found)] if found else ""


def verdict(source: Source, run: Facts) -> str:
    """State what is wrong first of all, if anything is, and the result."""
    worst = [finding for finding in _ordered(source.findings or ()) if finding.severity != "none"]
    return " ".join([*(_stop(finding.summary) for finding in worst[:1]), outcome(run)])


def entries(findings: Sequence[Finding], figures: Sequence[Figure]) -> Findings:
    """Put findings into words; those of one kind and severity become one entry, the first speaking for all."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in _ordered(findings):
        alike.setdefault((finding.severity, finding.kind), []).append(finding)
    return Findings(tuple(_entry(group, figures) for group in alike.values()))


def _ordered(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _entry(group: Sequence[Finding], figures: Sequence[Figure]) -> Entry:
    first, *others = group
    shown = (figure.name for number in first.evidence for figure in figures if number.measure in figure.measures)
    details = (
        ("Also", _also(others)),
        ("Evidence", "; ".join(map(_number, first.evidence))),
        ("Means", first.meaning),
        ("Try", first.advice),
        ("Confidence", _confidence(first)),
        ("Rests on", ". ".join(text.rstrip(".") for text in (first.equation, first.reference) if text)),
    )
    return Entry(
        severity=first.severity,
        kind=capital(first.kind.replace("bn-", "batch-norm-").replace("-", " ")),
        where=_where(first),
        summary=_stop(first.summary),
        details=tuple((label, text) for label, text in details if text),
        figure=next(shown, ""),
    )


def _where(finding: Finding) -> str:
    steps = f"step {finding.first_step}"
    if finding.last_step != finding.first_step:
        steps = f"steps {finding.first_step} to {finding.last_step}"
    return ", ".join(part for part in (finding.layer, steps) if part)


def _also(others: Sequence[Finding]) -> str:
    said = [_where(finding) for finding in others[:_MOST]]
    more = [f"and {len(others) - _MOST} more"] if len(others) > _MOST else []
    return "; ".join(said + more)


def _number(evidence: Evidence) -> str:
    show = degrees if evidence.units == "degree" else number
    units = "" if evidence.units in ("degree", "1", "") else f" {evidence.units}"
    at = "" if evidence.step is None else f" at step {evidence.step}"
    name = evidence.measure.replace("_", " ")
    return f"{name} {show(evidence.value)}{units} {evidence.relation} {show(evidence.threshold)}{units}{at}"


def _confidence(finding: Finding) -> str:
    if finding.severity == "none":
        return ""
    share = fixed(100 * finding.confidence, 0, "\N{NO-BREAK SPACE}%")
    return f"{share} of such findings were right where the truth was known"


def _stop(text: str) -> str:
    """End with a full stop; the first word may be a layer's name and stays as it is."""
    return f"{text.rstrip('.')}."
