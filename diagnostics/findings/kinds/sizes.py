"""Feedback of the wrong size: a failure that no angle shows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import Floats, Mask, View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.advice import Remedy
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.instability import runaway
from wtdiag.diagnostics.findings.kinds.base import (
    SPOILED,
    Sighting,
    blind,
    evidence,
    growth,
    kind,
    last_stretch,
    of_others,
)
from wtdiag.diagnostics.findings.kinds.motion import driven, jumping
from wtdiag.diagnostics.findings.severity import of_hampered_learning, unless_learned
from wtdiag.diagnostics.findings.thresholds import limit

_TOO_LARGE = {  # by measure: a phrase for the summary, and the thresholds for the value and for its excess
    "norm_ratio": ("has a norm ratio", "norm_ratio_high", "norm_ratio_excess"),
    "predicted_gain": ("is heading for a gain", "gain_high", "gain_excess"),
}


@kind(
    "feedback-too-large",
    meaning="B is many times as large as W, so errors grow on their way down, by the product of the norm ratios of all "
    "layers that they pass. The layers below take steps that are too large by this factor, whatever the angle.",
    advice=(
        remedies.smaller_gain,
        remedies.unit_scale,
        remedies.white_inputs,
        remedies.averaged_feedback,
        remedies.batch_norm,
    ),
    equation="‖B‖ / ‖W‖; at rest ⟨B*, W⟩ / ⟨W, W⟩; through all layers Σ log ‖B‖ / ‖W‖",
    reference="Kunin et al. 2020, arXiv:2003.01513",
    needs=("norm_ratio",),
    effects=("rank-collapse", "sign-flip"),
    effects_below=SPOILED,
)
def feedback_too_large(view: View) -> Iterator[Sighting]:
    """Find a norm ratio or a predicted gain far above 1, and above the other layers or its own start."""
    grown, reported = runaway(view), set()
    for measure, (phrase, above, beyond) in _TOO_LARGE.items():
        size = of_compared(view, measure)
        excess = size / of_others(size)
        high = (size > limit(above)) & ((excess > limit(beyond)) | grown)
        if measure == "norm_ratio":
            # Where something else than its rule made B large, or Adam's steps do, its size is not what is wrong.
            high &= ~(driven(view) | jumping(view))
        for layer, name in enumerate(view.layers):
            seen = np.flatnonzero(high[:, layer])
            if not len(seen) or layer in reported:  # a measured norm ratio makes the predicted gain redundant
                continue
            reported.add(layer)
            worst = int(seen[np.argmax(size[seen, layer])])
            lasting = last_stretch(high[:, layer], np.isfinite(size[:, layer])) is not None
            far = excess[worst, layer] > limit("size_severe") or bool(grown[worst, layer])
            yield Sighting(
                layer,
                int(seen[0]),
                int(seen[-1]),
                unless_learned(view) if lasting and far else "medium",
                f"The feedback of {name} {phrase} of {size[worst, layer]:.3g} (step {view.steps[worst]}), "
                f"{_against(excess[worst, layer])}{', and it has run away' if grown[worst, layer] else ''}.",
                (evidence(view, measure, worst, layer, ">", above),),
            )
    yield from _through_all(view, "norm_ratio_sum", 1)


@kind(
    "feedback-too-small",
    meaning="B is many times smaller than W, so errors shrink on their way down, by the product of the norm ratios of "
    "all layers that they pass. The layers below hardly learn, whatever the angle.",
    advice=(remedies.larger_gain, remedies.unit_scale, remedies.faster_feedback),
    equation="‖B‖ / ‖W‖; through all layers Σ log ‖B‖ / ‖W‖",
    reference="Kunin et al. 2020, arXiv:2003.01513",
    needs=("norm_ratio",),
    effects=("noisy-feedback", "rank-collapse", "not-aligning", "feedback-too-slow"),
    effects_below=("signal-below-floor", "inherited-error", "not-aligning", "feedback-too-small"),
)
def feedback_too_small(view: View) -> Iterator[Sighting]:
    """Find a norm ratio that at the end is far below 1 and far below that of the other layers."""
    ratio = of_compared(view, "norm_ratio")
    share = ratio / of_others(ratio)
    low = (ratio < limit("norm_ratio_low")) & ((share < limit("norm_ratio_deficit")) | (ratio == 0))
    for layer, name in enumerate(view.layers):
        seen = last_stretch(low[:, layer], np.isfinite(ratio[:, layer]))
        if seen:
            first, last = seen
            why, advice, grown = _shrunk(view, [layer])
            far = share[last, layer] < 1 / limit("size_severe")
            yield Sighting(
                layer,
                first,
                last,
                unless_learned(view) if far and not grown else "medium",
                f"The feedback of {name} has a norm ratio of {ratio[last, layer]:.3g} (step {view.steps[last]}), "
                f"{_against(share[last, layer])}{why}.",
                (evidence(view, "norm_ratio", last, layer, "<", "norm_ratio_low"),),
                advice,
            )
    yield from _through_all(view, "norm_ratio_sum_low", -1)


@kind(
    "bn-runaway",
    meaning="Batch norm makes the loss blind to the size of this layer's weights, so nothing limits it. W grows, its "
    "effective learning rate falls with 1 / |W|², and feedback that follows W grows with it.",
    advice=(remedies.smaller_gain, remedies.white_inputs, remedies.lower_rate, remedies.weight_decay),
    equation="⟨W, ∂L/∂W⟩ = 0: ‖W‖² grows by η² ‖∂L/∂W‖² in each step",
    reference="van Laarhoven 2017, arXiv:1706.05350",
    needs=("radial_cosine", "forward_norm"),
    effects=("step-too-large", "not-aligning"),
    effects_below=("feedback-too-large", "divergence", "inherited-error", "signal-below-floor"),
)
def bn_runaway(view: View) -> Iterator[Sighting]:
    """Find a loss that is blind to |W|, with a |W| that at the end is several times its first value."""
    norm, hidden = view["forward_norm"], blind(view)
    for layer, name in enumerate(view.layers):
        radial = np.abs(view["radial_cosine"][:, layer])
        finite = np.flatnonzero(np.isfinite(norm[:, layer]) & (norm[:, layer] > 0))
        if not hidden[layer] or not len(finite):
            continue
        grown = norm[:, layer] / norm[finite[0], layer]
        seen = last_stretch(grown > limit("norm_growth"), np.isfinite(grown))
        if seen:
            first, last = seen
            start, followed = finite[0], view["feedback_norm"][:, layer]
            with_it = followed[last] > limit("norm_growth") * followed[start]
            yield Sighting(
                layer,
                first,
                last,
                unless_learned(view) if with_it else "medium",
                f"The weights of {name} have grown by a factor of {grown[last]:.3g}, which batch norm hides from the "
                f"loss{', and their feedback has grown with them' if with_it else ''}.",
                (
                    evidence(view, "forward_norm", last, layer, ">", limit("norm_growth") * float(norm[start, layer])),
                    Evidence("radial_cosine", float(np.nanmedian(radial)), limit("radial_cosine"), "<"),
                ),
            )


def _shrunk(view: View, layers: list[int]) -> tuple[str, tuple[Remedy, ...], bool]:
    """Return why the norm ratio is small, what to do, and whether W grew, in which case errors have not shrunk."""
    with np.errstate(divide="ignore"):
        w, b = (float(np.nansum(np.log(growth(view[f"{side}_norm"])[layers]))) for side in ("forward", "feedback"))
    if w > max(-b, math.log(limit("norm_growth"))):
        return (
            f": W has grown by a factor of {_times(w)}, while B has not shrunk",
            (remedies.lower_rate, remedies.weight_decay),
            True,
        )
    why = f": B has shrunk to {_times(b)} of its first size" if -b > math.log(limit("norm_growth")) else ""
    return why, (), False


def _times(logarithm: float) -> str:
    return f"{math.exp(min(logarithm, 700)):.3g}"


def of_compared(view: View, measure: str) -> Floats:
    """Return a measure by step and layer, NaN where it is not finite or W and B cannot be compared."""
    values = np.where(view.compared, view[measure], np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _against(ratio: float) -> str:
    return f"which is {ratio:.3g} times the median of the other layers"


def _through_all(view: View, threshold: str, sign: int) -> Iterator[Sighting]:
    """Find a product of all norm ratios that is far from 1; it follows from a single layer if that one is to blame."""
    total = view["log_norm_ratio_sum"][:, 0]
    passed: Mask = sign * total > sign * limit(threshold)
    seen = last_stretch(passed, np.isfinite(total))
    if seen:
        first, last = seen
        what = "grow" if sign > 0 else "shrink"
        layers = np.flatnonzero(view.compared[last]).tolist()
        why, advice, grown = _shrunk(view, layers) if sign < 0 else ("", (), False)
        yield Sighting(
            None,
            first,
            last,
            "medium" if grown else of_hampered_learning(view),
            f"Errors {what} by a factor of {math.exp(min(abs(total[last]), 700)):.2g} through the feedback of "
            f"{len(layers)} layers{why}.",
            (Evidence("log_norm_ratio_sum", float(total[last]), limit(threshold), "<" if sign < 0 else ">", "1",
                      int(view.steps[last])),),
            advice,
        )  # fmt: skip
