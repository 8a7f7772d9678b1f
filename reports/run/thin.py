"""Thinning of long runs: a report on all snapshots would be too large to send."""

from __future__ import annotations

import dataclasses

import numpy as np

from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.diagnostics.findings.thresholds import limit
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.run.sources import Source

_MOST = 6000  # the most layers times snapshots in one report
_SNAPSHOTS = (25, 200)  # the fewest and the most snapshots, whatever the number of layers


def thin(source: Source) -> Source:
    """Return a source with as many evenly spread snapshots as a report can hold, and the most important ones.

    The last snapshot with values, those that findings mention, and those in which the step-size number is largest and
    first passes its limit are always kept.
    """
    analysis = source.analysis
    steps = analysis.step.values
    most = int(np.clip(_MOST // analysis.sizes["layer"], *_SNAPSHOTS))
    if len(steps) <= most:
        return source
    kept = {*spread(len(steps), most), last_measured(analysis)}
    named = [
        step
        for finding in source.findings or ()
        for step in (finding.first_step, finding.last_step, *(number.step for number in finding.evidence))
        if step is not None
    ]
    kept |= set(np.flatnonzero(np.isin(steps, named)).tolist())
    if "step_size_number" in analysis:
        largest = np.nan_to_num(analysis.step_size_number.transpose("step", "layer").values, nan=-np.inf).max(axis=1)
        kept |= {int(largest.argmax()), int((largest > limit("step_size_number")).argmax())}
    return dataclasses.replace(source, analysis=analysis.isel(step=sorted(kept)))
