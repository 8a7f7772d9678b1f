"""The first words on a run: how it came out, and how that compares with backprop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wtdiag.diagnostics.analysis.accuracy import Accuracy
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.diagnostics.findings.thresholds import limit
from wtdiag.probes.records.config import rule_name


def worst_severity(findings: Sequence[Finding] | None) -> str:
    """Return the severity of a run's most severe finding, "" if it was not diagnosed."""
    ranks = [SEVERITIES.index(finding.severity) for finding in findings or ()]
    return SEVERITIES[min(ranks)] if ranks else ""


def too_few_steps(findings: Sequence[Finding] | None) -> Finding | None:
    """Return the finding that training took too few steps to tell anything, if there is one."""
    short = (finding for finding in findings or () if finding.kind == "undertrained")
    return next((finding for finding in short if any(each.measure == "step" for each in finding.evidence)), None)


def headline(findings: Sequence[Finding] | None, accuracy: Accuracy, config: Mapping[str, Any]) -> str:
    """Return a headline on a run, without a full stop; "" if it was not diagnosed.

    Examples
    --------
    >>> import pandas as pd
    >>> from wtdiag.diagnostics.analysis.accuracy import Reference, accuracy
    >>> here = accuracy(pd.DataFrame({"step": [1], "test_accuracy": [0.5]}), {}, Reference("bp", "bp", 0.75, "test"))
    >>> headline([], here, {"status": "diverged"})
    'Diverged; 25.0 points below backprop before that'
    """
    if findings is None:
        return ""
    diverged, running = (config.get("status") == status for status in ("diverged", "running"))
    compared = _compared(accuracy, rule_name(config))
    if diverged and compared and accuracy.gap > 0:
        compared += " before that"
    state = _so_far(findings) if running else _state(findings, accuracy, diverged=diverged)
    return "; ".join(filter(None, (state, compared)))


def _so_far(findings: Sequence[Finding]) -> str:
    """Return how a run fares that has not ended, so that its accuracy says little yet."""
    found = "it is not healthy" if worst_severity(findings) == "high" else "no severe fault was found so far"
    return f"The run has not ended, and {found}"


def _state(findings: Sequence[Finding], accuracy: Accuracy, *, diverged: bool) -> str:
    kinds, worst = {finding.kind for finding in findings}, worst_severity(findings)
    if diverged:
        return "Diverged"
    if too_few_steps(findings):
        return "Too few steps to tell"
    if accuracy.at_chance or "learned-nothing" in kinds:
        return "Learned nothing"
    if worst == "high":
        return "Not healthy"
    if "undertrained" in kinds:
        return "Still learning when training ended"
    if accuracy.gap > limit("behind_costly") or worst == "medium":
        return "It learns, but not as well as it might"
    if math.isnan(accuracy.value):
        return "No fault found, but its accuracy is not known"
    return "Healthy" if accuracy.gap <= limit("behind") else "No fault found"


def _compared(accuracy: Accuracy, rule: str) -> str:
    """Return how the accuracy compares with that of the reference run."""
    reference, points = accuracy.reference, 100 * accuracy.gap
    if math.isnan(points):
        return "" if rule == "bp" else "not compared with backprop"
    assert reference is not None
    called = reference.called + (f" ({reference.name})" if reference.name != reference.rule else "")
    differs = f", which differs in {reference.differs}" if reference.differs else ""
    if abs(points) < 0.05:
        return f"as accurate as {called}{differs}"
    return f"{abs(points):.1f} points {'below' if points > 0 else 'above'} {called}{differs}"
