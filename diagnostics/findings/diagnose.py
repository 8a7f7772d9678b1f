"""From measurements to findings: what is wrong, where, when, how sure, why, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.finding import SEVERITIES, Finding
from wtdiag.diagnostics.findings.kinds import KINDS, Kind, Sighting
from wtdiag.diagnostics.findings.thresholds import confidence

_Seen = tuple[Kind, Sighting]


def diagnose(analysis: xr.Dataset, config: Mapping[str, Any], metrics: pd.DataFrame) -> tuple[Finding, ...]:
    """Look for every kind of finding, in whatever the analysis holds.

    Parameters
    ----------
    analysis
        What `diagnostics.analysis.analyze.analyze` gave; any variable may be missing.
    config, metrics
        The run's, as `probes.records.schema.open_run` gives them.

    Returns
    -------
    tuple of Finding
        Most severe first; then causes before what follows from them, the earliest, the surest, and the furthest
        beyond its threshold. Without any of severity high or medium, the last is a "nothing-wrong".

    Examples
    --------
    >>> angle = xr.DataArray([[150.0], [150.0]], dims=("step", "layer"))
    >>> analysis = xr.Dataset({"weight_angle": angle}, {"step": [0, 10], "layer": ["fc"]})
    >>> [(finding.kind, finding.layer, finding.severity) for finding in diagnose(analysis, {}, pd.DataFrame())]
    [('sign-flip', 'fc', 'high')]
    >>> diagnose(analysis * 0, {}, pd.DataFrame())[-1].kind
    'nothing-wrong'
    """
    view = View(analysis, config, metrics)
    looked = [each for each in KINDS.values() if all(map(view.has, each.needs))]
    with np.errstate(all="ignore"):  # infinities are no news: what is computed from them is infinite or NaN
        seen = [(each, sighting) for each in looked for sighting in each.detect(view)]
    causes = {id(each): _causes(each, seen) for each in seen}
    breaks = [sighting.first for each, sighting in seen if "divergence" in each.causes and sighting.severity == "high"]
    ranked = sorted((_rank(view, each, causes, min(breaks, default=len(view.steps))) for each in seen), key=_first)
    findings = [finding for _, finding in ranked]
    if not any(finding.severity in ("high", "medium") for finding in findings):
        findings.append(_nothing_wrong(view, looked))
    return tuple(findings)


def _causes(effect: _Seen, seen: Sequence[_Seen]) -> list[_Seen]:
    """Return what else was seen that explains an effect and is not explained by it, the most severe first."""
    causes = [cause for cause in seen if _explains(cause, effect) and not _explains(effect, cause)]
    return sorted(causes, key=lambda cause: SEVERITIES.index(cause[1].severity))


def _explains(cause: _Seen, effect: _Seen) -> bool:
    (kind, here), (other, there) = cause, effect
    if cause is effect or here.layer is None or here.first > there.last:
        return False
    # Of one kind, the first seen does not follow from the next; kinds differ in how long they take to show.
    if kind is other and here.first > there.first:
        return False
    if there.layer is None or there.layer < here.layer:
        return other.name in kind.causes_below
    return there.layer == here.layer and other.name in kind.causes


def _first(row: tuple[tuple[float, ...], Finding]) -> tuple[float, ...]:
    return row[0]


def _rank(
    view: View, each: _Seen, causes_of: Mapping[int, Sequence[_Seen]], broken: int
) -> tuple[tuple[float, ...], Finding]:
    """Make a finding and what it is sorted by; one that follows from another is no more severe than that.

    From the snapshot ``broken`` on the network is breaking: what shows later is no cause, even if nothing explains it.
    """
    (kind, sighting), causes = each, causes_of[id(each)]
    severity, summary = SEVERITIES.index(sighting.severity), sighting.summary
    if causes:
        severity = max(severity, SEVERITIES.index(causes[0][1].severity))
        # Said is a cause that was there before, and of these one that follows from nothing itself.
        before = sorted((c for c in causes if c[1].first <= sighting.first), key=lambda c: bool(causes_of[id(c)]))
        for cause, at in before[:1]:
            where = "" if at.layer is None else f" in {view.layers[at.layer]}"
            summary = f"{summary} It follows from {cause.name}{where}."
    finding = Finding(
        kind=kind.name,
        layer=None if sighting.layer is None else view.layers[sighting.layer],
        first_step=int(view.steps[sighting.first]),
        last_step=int(view.steps[sighting.last]),
        severity=SEVERITIES[severity],
        confidence=confidence(kind.name),
        summary=summary,
        evidence=sighting.evidence,
        meaning=kind.meaning,
        advice=sighting.advice + kind.advice,
        equation=kind.equation,
        reference=kind.reference,
    )
    key = (
        severity,
        bool(causes) or sighting.first > broken,
        finding.first_step,
        -finding.confidence,
        -_beyond(finding),
    )
    return key, finding


def _beyond(finding: Finding) -> float:
    """Return how far the first number lies beyond its threshold, as a logarithm of their ratio."""
    number = finding.evidence[0]
    value, threshold = abs(number.value), abs(number.threshold)
    if math.isnan(value) or math.isnan(threshold):
        return math.inf
    distance = _log(value) - _log(threshold)
    return distance if number.relation == ">" else -distance


def _log(value: float) -> float:
    return math.log(min(max(value, 1e-300), 1e300))


def _nothing_wrong(view: View, looked: Sequence[Kind]) -> Finding:
    missing = {need for kind in KINDS.values() for need in kind.needs if not view.has(need)}
    names = ", ".join(kind.name for kind in looked)
    unseen = [kind.name for kind in KINDS.values() if kind not in looked]
    summary = (
        f"Nothing wrong was found. Looked for in {len(view.layers)} layers and {len(view.steps)} snapshots: {names}."
    )
    if unseen:
        summary += f" Not looked for, for want of {', '.join(sorted(missing))}: {', '.join(unseen)}."
    return Finding(
        kind="nothing-wrong",
        layer=None,
        first_step=int(view.steps[0]),
        last_step=int(view.steps[-1]),
        severity="none",
        confidence=confidence("nothing-wrong"),
        summary=summary,
        evidence=(),
        meaning="No measure lies beyond the threshold of a finding of high or medium severity.",
        advice="None is needed. To look further, compare the run with backprop's: `--rule bp` with the same settings.",
        equation="",
        reference="",
    )
