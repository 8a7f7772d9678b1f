"""Faults of the error signal on its way down."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.costs import COSTS, culprits
from wtdiag.diagnostics.analysis.view import Mask, View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "inherited-error",
    meaning="Below this layer, most of what is wrong with the error has arrived from above, so better feedback in the "
    "layers below would help little.",
    advice=(
        remedies.batch_norm,
        remedies.white_inputs,
        remedies.feedback_in_every_step,
        remedies.faster_feedback,
        remedies.stronger_shared_decay,
        remedies.sign_symmetry,
        "First improve the feedback above this layer, beginning with the layer whose own feedback adds the largest "
        "angle to the error.",
    ),
    equation="∠(Wᵀδ, Wᵀδ*) > ∠(Bᵀδ, Wᵀδ) in all layers from here down",
    reference="wtdiag, for the local and the inherited angle; Akrout et al. 2019, arXiv:1904.05391, for the total",
    needs=("error_angle_inherited", "error_angle_local", "error_angle_total"),
)
def inherited_error(view: View) -> Iterator[Sighting]:
    """Find the layer from which down, at the end, the inherited angle exceeds the local one and the total is wide.

    If no feedback has aligned at all, it is up to chance which of the two is wider.
    """
    local, inherited, total = (view[f"error_angle_{part}"] for part in ("local", "inherited", "total"))
    # Direct feedback inherits nothing.
    known = np.isfinite(local) & np.isfinite(inherited) & np.isfinite(total) & ~view.direct
    steps = np.flatnonzero(known.sum(axis=1) > 1)
    if not len(steps):
        return
    last = int(steps[-1])
    layers = np.flatnonzero(known[last])
    aligned = ~(local >= view.band("error_angle_local")[0])[last, layers]
    dominated = inherited[last, layers] > local[last, layers] + limit("inherited_margin")
    count = len(layers) if dominated.all() else int(np.argmin(dominated))
    if not count or not aligned.any() or total[last, layers[0]] < limit("inherited_angle"):
        return
    top, bottom = int(layers[count - 1]), int(layers[0])
    since, _ = last_stretch(total[:, bottom] > limit("inherited_angle"), known[:, bottom]) or (last, last)
    yield Sighting(
        top,
        since,
        last,
        "medium",
        f"From {view.layers[top]} down, the error is wrong mainly by what it inherits from above: what "
        f"{view.layers[bottom]} sends on is {total[last, bottom]:.0f}° off exact backprop"
        f"{_costliest(view, last, top)}.",
        (
            evidence(view, "error_angle_total", last, bottom, ">", "inherited_angle"),
            evidence(view, "error_angle_inherited", last, top, ">", float(local[last, top]), "degree"),
        ),
    )


def _costliest(view: View, step: int, top: int) -> str:
    """Return a clause that names the layers to blame, if they lie above ``top``; else an empty text."""
    blamed = culprits({name: view[name][step] for name in COSTS})
    if blamed is None or not blamed.layers or min(blamed.layers) <= top:
        return ""
    return f", and {'most' if blamed.share > 0.5 else 'the largest share'} of this is due to {blamed.said(view.layers)}"


@kind(
    "signal-below-floor",
    meaning="The error that reaches this layer is zero, or its size is so far from backprop's that rounding has taken "
    "its direction. This layer and all those below it do not learn from the task.",
    advice=(
        remedies.batch_norm,
        remedies.unit_gain,
        remedies.unit_scale,
        remedies.lower_rate,
        "Choose another initialisation if units are dead from the start; if errors vanish or explode, look at the norm "
        "ratios of the layers above.",
    ),
    equation="δ* = 0 in all examples; or ‖δ‖ / ‖δ*‖ above 10⁶ or below 10⁻⁶",
    reference="He et al. 2015, arXiv:1502.01852, on signals that vanish with depth",
    effects=("not-aligning", "noisy-feedback", "feedback-too-slow"),
    effects_below=("inherited-error", "signal-below-floor", "not-aligning"),
    needs=("error_norm_ratio",),
)
def signal_below_floor(view: View) -> Iterator[Sighting]:
    """Find an error that is zero, of absurd size or absent from most units; of neighbours, name the topmost layer."""
    ratio = view["error_norm_ratio"]
    beyond = (ratio > limit("error_norm_ratio")) | (ratio < 1 / limit("error_norm_ratio"))
    below, dead = view["below_floor"] > 0, view["dead_units"] > limit("dead_units")
    lost: Mask = below | dead | beyond
    if not lost.any():
        return
    # If even the exact error of the output is zero, there is nothing left to learn, which is not a fault.
    lost &= ~(below & np.isnan(ratio))[:, -1:]
    known = ~(np.isnan(view["below_floor"]) & np.isnan(ratio) & np.isnan(view["dead_units"]))
    # Of neighbours that all lost it, the topmost is to blame, unless it is silent because no input reaches it.
    fed = ~(lost & (view["activation_norm"] == 0))
    blamed = (lost & fed).any(axis=0)
    for layer in np.flatnonzero(blamed & ~np.append(blamed[1:], False)).tolist():
        seen, at = np.flatnonzero(lost[:, layer]), np.flatnonzero(known[:, layer])
        first, last = int(seen[0]), int(seen[-1])
        numbers: list[Evidence] = []
        if dead[last, layer]:
            numbers.append(evidence(view, "dead_units", last, layer, ">", "dead_units"))
        if below[last, layer]:
            numbers.append(evidence(view, "below_floor", last, layer, ">", 0.0))
        if beyond[last, layer]:
            large = ratio[last, layer] > 1
            threshold = limit("error_norm_ratio") ** (1 if large else -1)
            numbers.append(evidence(view, "error_norm_ratio", last, layer, ">" if large else "<", threshold))
        reached = 100 * (1 - view["dead_units"][last, layer])
        what = f"reaches {reached:.0f} % of the units" if dead[last, layer] else "is lost"
        yield Sighting(
            layer,
            first,
            last,
            "high" if last == at[-1] else "medium",
            f"The error signal of {view.layers[layer]} {what} at step {view.steps[last]}.",
            tuple(numbers),
        )
