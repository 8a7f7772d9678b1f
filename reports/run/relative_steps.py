"""Words on the steps of optimisers other than SGD: Adam's have a relative size in place of a step-size number."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.layout import carrying
from wtdiag.diagnostics.findings.thresholds import limit
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.reports.figures.style import number, short
from wtdiag.reports.run.sources import Source


def takes_adam(analysis: xr.Dataset) -> bool:
    """Return whether Adam trains the feedback, as far as the analysis tells: its steps alone have a travel time."""
    return all(name in analysis and np.isfinite(analysis[name]).any() for name in ("relative_step", "travel_time"))


def without_theory(source: Source) -> str:
    """Return the title of the optimiser that trains the feedback, if none of its steps' measures is known; else ""."""
    settings, rates = source.settings, source.metrics.get("feedback_lr")
    if rates is None or rates.isna().all():
        return ""
    kind = settings.get("feedback_optimizer") or "forward"  # the optimisers that rules come with have a theory
    optimizer = OPTIMIZERS.get(str(settings.get("optimizer") if kind == "forward" else kind))
    if optimizer is None or optimizer.theory or takes_adam(source.analysis):
        return ""
    return "" if np.isfinite(source.stability.step_size_number).any() else optimizer.title


def steps_of_adam(analysis: xr.Dataset) -> str:
    """Say how large Adam's steps on the feedback are and what that means; nothing if Adam does not train it."""
    if not takes_adam(analysis):
        return ""
    sizes = analysis.relative_step.transpose("step", "layer").values
    sizes = np.where(np.isfinite(sizes) & carrying(analysis), sizes, -np.inf)
    at, layer = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
    largest = sizes[at, layer]
    if not largest >= 0:
        return ""
    place = f"in {short(str(analysis.layer.values[layer]), 40)} at step {int(analysis.step.values[at])}"
    meaning = (
        "One step is then larger than all that the feedback has to learn, and the feedback comes to rest only if the "
        "noise of its gradient is weak."
        if largest > limit("relative_step")
        else "Below 1 the feedback can come to rest."
    )
    return (
        "Predicted: Adam trains the feedback. Its steps do not grow with the gradient, so that they have no step-size "
        "number S: in each step every entry moves by about the learning rate. Relative to the size of the fixed point, "
        f"the largest step is {number(largest)}, {place}. {meaning}"
    )
