"""Findings as a reader sees them: the most severe first, similar ones merged, each with a link to its figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from wtdiag.diagnostics.findings.advice import command
from wtdiag.diagnostics.findings.finding import Evidence, Finding
from wtdiag.diagnostics.findings.headline import too_few_steps
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.reports.document.content import Entry, Figure, Findings
from wtdiag.reports.figures.style import capital, fixed, number, percent, printable
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_tables import degrees
from wtdiag.reports.run.sources import Source
from wtdiag.reports.run.summary import outcome

_MOST = 12  # the most layers that one finding lists


def verdict(source: Source, run: Facts) -> str:
    """State the most severe finding, if there is one, whether training was too short, and the result of the run."""
    worst = [finding for finding in _ordered(source.findings or ()) if finding.severity != "none"]
    said = worst[:1] + [finding for finding in worst[1:] if finding.kind == "undertrained"]
    if few := too_few_steps(worst):
        said = [few]
    return " ".join([*(_stop(finding.summary) for finding in said), outcome(run)])


def entries(findings: Sequence[Finding], figures: Sequence[Figure], analysis: xr.Dataset, run: Path) -> Findings:
    """Put the findings on the run in the directory ``run`` into words, with its analysis' names for measures.

    Findings of the same kind and severity become one entry, which states the first of them.
    """
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in _ordered(findings):
        alike.setdefault((finding.severity, finding.kind), []).append(finding)
    return Findings(tuple(_entry(group, figures, analysis, run) for group in alike.values()))


def _ordered(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _entry(group: Sequence[Finding], figures: Sequence[Figure], analysis: xr.Dataset, run: Path) -> Entry:
    first, *others = group
    best, *remedies = first.advice or [""]
    shown = (figure.name for number in first.evidence for figure in figures if number.measure in figure.measures)
    details = (
        ("Also", _also(others)),
        ("Evidence", "; ".join(_number(evidence, analysis) for evidence in first.evidence)),
        ("Means", first.meaning),
        ("Try", best),
        ("Or", " Or: ".join(remedies)),
        ("Confidence", _confidence(first)),
        ("Rests on", ". ".join(text.rstrip(".") for text in (first.equation, first.reference) if text)),
    )
    return Entry(
        severity=first.severity,
        kind=capital(first.kind.replace("bn-", "batch-norm-").replace("-", " ")),
        where=_where(first),
        summary=_stop(first.summary),
        details=tuple((label, text) for label, text in details if text),
        command="\n".join(map(printable, command(first.changes, run).splitlines())),
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


def _number(evidence: Evidence, analysis: xr.Dataset) -> str:
    share = "accuracy" in evidence.measure and evidence.units == "1"
    show = degrees if evidence.units == "degree" else percent if share else number
    units = "" if evidence.units in ("degree", "1", "") else f" {evidence.units}"
    at = "" if evidence.step is None else f" at step {evidence.step}"
    name = evidence.measure.replace("_", " ")  # such as a column of the metrics, which has no label
    if evidence.measure in analysis:
        name = str(analysis[evidence.measure].attrs.get("long_name", name))
    return f"{name}: {show(evidence.value)}{units} {evidence.relation} {show(evidence.threshold)}{units}{at}"


def _confidence(finding: Finding) -> str:
    if finding.severity == "none":
        return ""
    if not np.isfinite(finding.confidence):
        return "not measured in test runs whose fault was known"
    share = fixed(100 * finding.confidence, 0, "\N{NO-BREAK SPACE}%")
    return f"{share} of such findings were right in test runs whose fault was known"


def _stop(text: str) -> str:
    """Return a text that ends with a full stop; its first word may be a layer's name and stays as it is."""
    return f"{text.rstrip('.')}."
