"""Fewer snapshots of a long run: more than a page can show would make it too large to send."""

from __future__ import annotations

import dataclasses

import numpy as np

from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.run.sources import Source

_MOST = 6000  # layers times snapshots in one report
_SNAPSHOTS = (25, 200)  # but no fewer snapshots than the first, and no more than the second


def thin(source: Source) -> Source:
    """Keep as many snapshots of a run as a report can hold, evenly spread, and those that matter most.

    Kept in any case are the last with values, those that findings speak of, and those in which the step-size number
    is largest and first passes 1.
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
        kept |= {int(largest.argmax()), int((largest > 1).argmax())}
    return dataclasses.replace(source, analysis=analysis.isel(step=sorted(kept)))
