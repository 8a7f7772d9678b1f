"""Forward weights that move too far in one step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.kinds.base import SPOILED, Sighting, evidence, kind
from wtdiag.diagnostics.findings.severity import unless_learned
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "forward-step-too-large",
    meaning="A step changes the forward weights by as much as they are. Whatever the layer had learned is gone after "
    "one step, and its feedback points at weights that no longer exist.",
    advice=(remedies.weaker_shared_decay, remedies.lower_rate, remedies.smaller_scale, remedies.clipped),
    equation="η ‖∂L/∂W‖ / ((1 − μ) ‖W‖) > 1",
    reference="You et al. 2017, arXiv:1708.03888, for the ratio of an update to the weights",
    needs=("relative_update",),
    effects=("rank-collapse",),
    effects_below=SPOILED,
)
def forward_step_too_large(view: View) -> Iterator[Sighting]:
    """Find an update of W as large as W; of all layers, name the one in which it was seen first, and was largest."""
    size = view["relative_update"]
    beyond = size > limit("relative_update")
    if not beyond.any():
        return
    first, last = (int(np.flatnonzero(beyond.any(axis=1))[end]) for end in (0, -1))
    layer = int(np.nanargmax(np.where(beyond[first], size[first], -np.inf)))
    number = beyond.any(axis=0).sum()
    # One step alone may pass, unless it leaves less than a tenth of what W was.
    lasting = beyond.any(axis=1).sum() > 1 or (size > limit("update_severe")).any()
    severity = unless_learned(view) if lasting else "medium"
    passed = last < len(view.steps) // 2  # a network that learned has recovered from it
    others = "" if number < 2 else ", and so does that of another layer later"
    others = f", and so do those of {number - 1} other layers later" if number > 2 else others
    yield Sighting(
        layer,
        first,
        last,
        "low" if passed and severity == "medium" else severity,
        f"The steps of the forward weights are too large: at step {view.steps[first]}, the update of "
        f"{view.layers[layer]} reaches {size[first, layer]:.3g} times the weights themselves{others}"
        f"{_after_larger_feedback(view)}.",
        (evidence(view, "relative_update", first, layer, ">", "relative_update"),),
    )


def _after_larger_feedback(view: View) -> str:
    """Say so if B began larger than W, as it does where W has PyTorch's own initialisation."""
    ratios = np.where(view.compared, view["norm_ratio"], np.nan)[0]
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios) or np.median(ratios) < 1.5:
        return ""
    return (
        f". B began {np.median(ratios):.2g} times as large as W in a typical layer, so that errors, and with them the "
        "steps, grow on their way down"
    )
