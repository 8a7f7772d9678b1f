"""Feedback that points nowhere, the wrong way, or in one direction only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.chance import IN_WORDS
from wtdiag.diagnostics.analysis.view import Floats, View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch
from wtdiag.diagnostics.findings.severity import of_hampered_learning, unless_learned
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "not-aligning",
    meaning="B is no closer to W than unrelated weights would be by chance, so what this layer does to the errors that "
    "pass it has nothing to do with what backprop would do to them.",
    advice=(
        remedies.batch_norm,
        remedies.feedback_in_every_step,
        remedies.white_inputs,
        remedies.faster_feedback,
        remedies.stronger_shared_decay,
        remedies.sign_symmetry,
        remedies.more_epochs,
    ),
    equation=f"∠(W, B) within {IN_WORDS} of 90°, each 57.3° / √n",
    reference="Refinetti et al. 2021, ICML, arXiv:2011.12428",
    needs=("weight_angle",),
    effects_below=("inherited-error", "not-aligning"),
)
def not_aligning(view: View) -> Iterator[Sighting]:
    """Find an angle that never left its chance band in a run of at least three snapshots.

    B may be aligned in the few directions that errors take and nowhere else, which the angle of all its entries hides:
    the error that the layer sends then lies below its own chance band, and nothing is found.
    """
    angle, local = view["weight_angle"], view["error_angle_local"]
    low, high = view.band("weight_angle")
    useful = local < view.band("error_angle_local")[0]
    for layer in view.sending_down:
        known = np.flatnonzero(np.isfinite(angle[:, layer]))
        if len(known) < 3 or not ((angle >= low) & (angle <= high))[known, layer].all():
            continue
        last = int(known[-1])
        if useful[last, layer]:
            continue
        yield Sighting(
            layer,
            int(known[0]),
            last,
            of_hampered_learning(view),
            f"The feedback of {view.layers[layer]} has not aligned: at step {view.steps[last]} its angle to W is "
            f"{angle[last, layer]:.1f}°, which is within chance.",
            (evidence(view, "weight_angle", last, layer, ">", float(low[last, layer]), "degree"),),
        )


@kind(
    "sign-flip",
    meaning="B points against W, so the errors that it sends down make the layers below learn the opposite.",
    advice=(remedies.unit_gain, remedies.white_inputs, "Check that nothing negates the feedback weights."),
    equation="∠(W, B) > 90°",
    reference="Liao, Leibo & Poggio 2016, AAAI, arXiv:1510.05067",
    needs=("weight_angle",),
    effects=("not-aligning", "angle-at-ceiling"),
    effects_below=("inherited-error",),
)
def sign_flip(view: View) -> Iterator[Sighting]:
    """Find an angle that exceeds 90° at the end by more than chance."""
    by_chance = view.band("weight_angle")[1]
    flipped = view["weight_angle"] > np.fmax(by_chance, 90 + limit("flipped_angle"))
    for layer in view.sending_down:
        seen = last_stretch(flipped[:, layer], np.isfinite(view["weight_angle"][:, layer]))
        if seen:
            first, last = seen
            angle = view["weight_angle"][last, layer]
            numbers = [evidence(view, "weight_angle", last, layer, ">", 90.0 + limit("flipped_angle"), "degree")]
            if view["sign_agreement"][last, layer] < 0.5:
                numbers.append(evidence(view, "sign_agreement", last, layer, "<", 0.5))
            if view["projection_angle"][last, layer] > 90:
                numbers.append(evidence(view, "projection_angle", last, layer, ">", 90.0, "degree"))
            yield Sighting(
                layer,
                first,
                last,
                unless_learned(view) if angle > limit("flipped_over") else "medium",
                f"The feedback of {view.layers[layer]} points against W: their angle is {angle:.0f}° at step "
                f"{view.steps[last]}.",
                tuple(numbers),
            )


@kind(
    "rank-collapse",
    meaning="The matrix has collapsed onto few directions. It carries errors or activations of many units as one, "
    "so units that differ cannot be told apart.",
    advice=(remedies.smaller_feedback_step, remedies.white_inputs, remedies.lower_rate),
    equation="(erank(B) − 1) / (erank(W) − 1), erank = exp of the entropy of σ / Σσ",
    reference="Roy & Vetterli 2007, EUSIPCO, for the effective rank; Refinetti et al. 2021, arXiv:2011.12428",
    needs=("feedback_effective_rank", "forward_effective_rank"),
    effects=("noisy-feedback", "not-aligning", "feedback-too-small", "angle-at-ceiling", "error-rank-collapse"),
    effects_below=("inherited-error", "error-rank-collapse"),
)
def rank_collapse(view: View) -> Iterator[Sighting]:
    """Find an effective rank of B that is a small share of W's, or one of W that is a small share of its first."""
    forward, feedback = view["forward_effective_rank"], view["feedback_effective_rank"]
    carried = np.where(view.compared, _share(feedback, forward), np.nan)
    for measure, name, share in (
        ("feedback_effective_rank", "feedback", carried),
        ("forward_effective_rank", "weight", _share(forward, forward[:1])),
    ):
        for layer in range(len(view.layers)):
            seen = last_stretch(share[:, layer] < limit("rank_share"), np.isfinite(share[:, layer]))
            if seen:
                first, last = seen
                reference = forward[last, layer] if name == "feedback" else forward[0, layer]
                rank = float(view[measure][last, layer])
                threshold = 1 + limit("rank_share") * (float(reference) - 1)
                yield Sighting(
                    layer,
                    first,
                    last,
                    unless_learned(view) if name == "feedback" else "medium",
                    f"The {name} of {view.layers[layer]} has collapsed to an effective rank of {rank:.2g}, while "
                    f"{'that of W is' if name == 'feedback' else 'it began at'} {reference:.3g}.",
                    (Evidence(measure, rank, threshold, "<", "1", int(view.steps[last])),),
                )


def _share(rank: Floats, reference: Floats) -> Floats:
    """Return (rank − 1) / (reference − 1); NaN where the reference is 2 or less."""
    known = np.isfinite(rank) & (reference > 2)
    return np.where(known, (rank - 1) / np.where(reference > 2, reference - 1, 1.0), np.nan)
