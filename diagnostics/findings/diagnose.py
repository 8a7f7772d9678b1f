"""Diagnosis of an analysed run: what is wrong, where and when, how sure that is, why, and what to try."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.accuracy import Reference
from wtdiag.diagnostics.analysis.owed import Baseline
from wtdiag.diagnostics.analysis.reading import known
from wtdiag.diagnostics.analysis.sentences import counted
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.advice import Accepts, Case, advise
from wtdiag.diagnostics.findings.finding import Finding, FoundFaults
from wtdiag.diagnostics.findings.kinds import KINDS, Kind, Sighting
from wtdiag.diagnostics.findings.kinds.base import RESULT
from wtdiag.diagnostics.findings.severity import SEVERITIES, no_more_than
from wtdiag.diagnostics.findings.thresholds import confidence
from wtdiag.probes.errors import with_type

_Seen = tuple[Kind, Sighting]


def diagnose(
    analysis: xr.Dataset,
    config: Mapping[str, Any],
    metrics: pd.DataFrame,
    accepts: Accepts | None = None,
    reference: Reference | None = None,
    baseline: Baseline | None = None,
) -> FoundFaults:
    """Return the findings on a run, of every kind that the analysis has the measures for.

    Parameters
    ----------
    analysis
        As `diagnostics.analysis.analyze.analyze` returns it; any variable may be missing.
    config, metrics
        Those of the run, as `probes.records.schema.open_run` returns them.
    accepts
        Says which changed settings ``wtdiag train`` could make the run again with; None if it did not make the run, so
        that advice is about the user's own loop.
    reference
        A run by backprop, or by another rule, that its accuracy is held against.
    baseline
        What the run owes to its lower layers, as ``wtdiag baseline`` measured it.

    Returns
    -------
    tuple of Finding
        The most severe come first. Among equals, faults come before what came of them, causes before their effects, one
        layer's fault before one of the whole network, and then the earliest, the surest and those furthest beyond their
        threshold. That a network learned nothing, or less than its reference, is a finding only where none of severity
        high or medium tells why. If none has severity high or medium, the last is "nothing-wrong".

    Examples
    --------
    >>> angle = xr.DataArray([[150.0], [150.0]], dims=("step", "layer"))
    >>> analysis = xr.Dataset({"weight_angle": angle}, {"step": [0, 100], "layer": ["fc"]})
    >>> [(finding.kind, finding.layer, finding.severity) for finding in diagnose(analysis, {}, pd.DataFrame())]
    [('sign-flip', 'fc', 'high')]
    >>> diagnose(analysis * 0, {}, pd.DataFrame())[-1].kind
    'nothing-wrong'
    """
    view = View(analysis, config, metrics, reference, baseline)
    searched = [each for each in KINDS.values() if all(map(view.has, each.needs)) and not _is_unasked(each, view)]
    with np.errstate(all="ignore"):  # infinities need no warning: what is computed from them is infinite or NaN
        seen = [(each, sighting) for each in searched for sighting in _sightings(each, view)]
        if any(sighting.severity in ("high", "medium") for each, sighting in seen if each.order < RESULT):
            seen = [(each, sighting) for each, sighting in seen if each.order < RESULT]
        causes = {id(each): _causes(each, seen) for each in seen}
        breaks = [
            sighting.first
            for each in seen
            for kind, sighting in [each]
            if "divergence" in kind.effects and sighting.severity == "high" and not causes[id(each)]
        ]
        broken = min(breaks, default=len(view.steps))
        ranked = sorted((_rank(view, each, causes, broken, accepts) for each in seen), key=_first)
    findings = [finding for _, finding in ranked]
    if not any(finding.severity in ("high", "medium") for finding in findings):
        findings.append(_nothing_wrong(view, searched, accepts))
    return FoundFaults(findings)


def _is_unasked(kind: Kind, view: View) -> bool:
    """Return whether a kind rests on what another command measures, which was not called."""
    return bool(kind.command) and view.baseline is None


def _sightings(kind: Kind, view: View) -> list[Sighting]:
    """Return what a detector sees; that of another package may raise anything, and is then left out with a warning."""
    if kind.detect.__module__.startswith("wtdiag.diagnostics."):
        return list(kind.detect(view))
    try:
        return list(kind.detect(view))
    except Exception as error:
        found = f"the finding {kind.name!r} of {kind.detect.__module__} is left out"
        warnings.warn(f"{found}: {with_type(error)}", stacklevel=2)
        return []


def _causes(effect: _Seen, seen: Sequence[_Seen]) -> list[_Seen]:
    """Return the sightings that explain an effect and are not explained by it, the most severe first."""
    causes = [cause for cause in seen if _explains(cause, effect) and not _explains(effect, cause)]
    return sorted(causes, key=lambda cause: SEVERITIES.index(cause[1].severity))


def _explains(cause: _Seen, effect: _Seen) -> bool:
    (kind, here), (other, there) = cause, effect
    if cause is effect or here.layer is None or here.first > there.last:
        return False
    # Within one kind, the first sighting does not follow from a later one. Two kinds may take different times to show.
    if kind is other and here.first > there.first:
        return False
    if there.layer is None or there.layer < here.layer:
        return other.name in kind.effects_below
    return there.layer == here.layer and other.name in kind.effects


def _first(row: tuple[tuple[float, ...], Finding]) -> tuple[float, ...]:
    return row[0]


def _rank(
    view: View, each: _Seen, causes_of: Mapping[int, Sequence[_Seen]], broken: int, accepts: Accepts | None
) -> tuple[tuple[float, ...], Finding]:
    """Return the finding of a sighting, after its sort key; a finding with a cause is no more severe than the cause.

    The network breaks from the snapshot ``broken`` on, so that what shows later ranks as an effect even if nothing
    explains it.
    """
    (kind, sighting), causes = each, causes_of[id(each)]
    severity, summary = sighting.severity, sighting.summary
    if causes:
        severity = no_more_than(severity, causes[0][1].severity)
        # The summary names a cause that was seen no later, and if possible one that has no cause itself.
        before = sorted((c for c in causes if c[1].first <= sighting.first), key=lambda c: bool(causes_of[id(c)]))
        for cause, at in before[:1]:
            where = "" if at.layer is None else f" in {view.layers[at.layer]}"
            summary = f"{summary} It follows from {cause.name}{where}."
    advice, changes = advise(Case(view, sighting.layer, accepts), sighting.remedies + kind.remedies)
    finding = Finding(
        kind=kind.name,
        layer=None if sighting.layer is None else view.layers[sighting.layer],
        first_step=int(view.steps[sighting.first]),
        last_step=int(view.steps[sighting.last]),
        severity=severity,
        confidence=confidence(kind.name),
        summary=summary,
        evidence=sighting.evidence,
        meaning=kind.meaning,
        advice=advice,
        equation=kind.equation,
        reference=kind.reference,
        changes=changes,
    )
    key = (
        SEVERITIES.index(severity),
        kind.order,
        bool(causes) or sighting.first > broken,
        sighting.layer is None,
        finding.first_step,
        -_or_even(finding.confidence),
        -_beyond(finding),
    )
    return key, finding


def _beyond(finding: Finding) -> float:
    """Return how far the first number lies beyond its threshold, as the logarithm of their ratio."""
    number = finding.evidence[0]
    value, threshold = abs(number.value), abs(number.threshold)
    if math.isnan(value) or math.isnan(threshold):
        return math.inf
    distance = _log(value) - _log(threshold)
    return distance if number.relation == ">" else -distance


def _or_even(confidence: float) -> float:
    """Return a confidence, 0.5 where none was measured, so that findings can be ranked."""
    return 0.5 if math.isnan(confidence) else confidence


def _log(value: float) -> float:
    return math.log(min(max(value, 1e-300), 1e300))


def _nothing_wrong(view: View, searched: Sequence[Kind], accepts: Accepts | None) -> Finding:
    needed = {need for kind in KINDS.values() for need in kind.needs}
    missing = sorted(known()[need].label for need in needed if not view.has(need))
    skipped = [kind.name for kind in KINDS.values() if kind not in searched and not kind.command]
    how = "with --rule bp" if accepts is not None else "with backprop"
    compared = not math.isnan(view.accuracy.gap) or view.rule == "bp"
    summary = (
        f"Nothing wrong was found in {counted(len(view.layers), 'layer')} and {counted(len(view.steps), 'snapshot')}."
    )
    looked = (
        "No measure lies beyond the threshold of a finding of high or medium severity. The diagnosis looked for "
        f"{', '.join(kind.name for kind in searched)}."
    )
    if skipped:
        looked += (
            f" It could not look for {', '.join(skipped)}, because the analysis has no values of {', '.join(missing)}."
        )
    return Finding(
        kind="nothing-wrong",
        layer=None,
        first_step=int(view.steps[0]),
        last_step=int(view.steps[-1]),
        severity="none",
        confidence=confidence("nothing-wrong"),
        summary=summary,
        evidence=(),
        meaning=looked,
        advice=()
        if compared
        else (
            f"To know what the rule costs, train {how} and the same settings, and give that run to `wtdiag analyze` "
            "with --against.",
        ),
        equation="",
        reference="",
    )
