"""Failures that neither angles nor accuracy show by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.kinds.base import RESULT, SPOILED, Sighting, evidence, kind, last_stretch
from wtdiag.diagnostics.findings.severity import of_hampered_learning
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "error-rank-collapse",
    meaning="The feedback of this layer sends nearly the same error to all examples, but for its size and sign, where "
    "backpropagation tells them apart. The layers below learn along few directions, whatever the angle.",
    advice=(
        "Draw the feedback anew, with full rank; direct feedback needs as many independent rows as there are classes.",
        remedies.sign_symmetry,
    ),
    equation="(erank(Bᵀδ) − 1) / (erank(Wᵀδ*) − 1), erank = exp(−Σ pᵢ ln pᵢ), pᵢ = σᵢ / Σ σ",
    reference="arXiv:2606.11123; Roy and Vetterli 2007, The effective rank, EUSIPCO",
    needs=("sent_effective_rank", "sent_effective_rank_exact"),
    effects=("not-aligning",),
    effects_below=("inherited-error", "not-aligning"),
)
def error_rank_collapse(view: View) -> Iterator[Sighting]:
    """Find an error sent on whose rank is at the end a small share of that which backpropagation sends on."""
    ours, exact = view["sent_effective_rank"] - 1, view["sent_effective_rank_exact"] - 1
    share = np.where(exact > limit("error_rank_exact"), ours / exact, np.nan)
    for layer, name in enumerate(view.layers):
        known = np.isfinite(share[:, layer])
        if seen := last_stretch(share[:, layer] < limit("error_rank_share"), known):
            first, last = seen
            threshold = 1 + limit("error_rank_share") * float(exact[last, layer])
            yield Sighting(
                layer,
                first,
                last,
                of_hampered_learning(view),
                f"The error that {name} sends down has an effective rank of {ours[last, layer] + 1:.2g} at step "
                f"{view.steps[last]}, where that of backpropagation has {exact[last, layer] + 1:.2g}.",
                (evidence(view, "sent_effective_rank", last, layer, "<", threshold),),
            )


@kind(
    "residual-growth",
    meaning="The hidden signal grows many times from one end of this layer's block to the other. What later blocks add "
    "to it no longer counts, and the sizes of signals and updates differ between the layers by this factor.",
    advice=(remedies.batch_norm, remedies.lower_rate, remedies.weight_decay),
    equation="rms(h_{l+1}) / rms(h_l)",
    reference="arXiv:2606.21126",
    needs=("residual_growth",),
    effects=("signal-below-floor", "not-aligning"),
    effects_below=SPOILED,
)
def residual_growth(view: View) -> Iterator[Sighting]:
    """Find a hidden signal that at the end grows many times through a block; the first layer's input is the data."""
    grown = view["residual_growth"]
    for layer, name in list(enumerate(view.layers))[1:]:
        if seen := last_stretch(grown[:, layer] > limit("residual_growth"), np.isfinite(grown[:, layer])):
            first, last = seen
            yield Sighting(
                layer,
                first,
                last,
                of_hampered_learning(view),
                f"The hidden signal grows {grown[last, layer]:.3g} times through the block that ends in {name} "
                f"(step {view.steps[last]}).",
                (evidence(view, "residual_growth", last, layer, ">", "residual_growth"),),
            )


@kind(
    "no-better-than-frozen",
    meaning="A last layer trained on the features that this run learned answers no better than one trained on those of "
    "the layers as they were at the start. Whatever accuracy the run has, its lower layers have not earned it.",
    advice=(remedies.sign_symmetry, remedies.more_epochs),
    equation="accuracy(last layer on learned features) − accuracy(last layer on initial features) ≤ 0 within 95 %",
    reference="arXiv:2606.21126; Rahimi and Recht 2008, Weighted sums of random kitchen sinks",
    order=RESULT,
    command="wtdiag baseline",
)
def no_better_than_frozen(view: View) -> Iterator[Sighting]:
    """Find a run whose learned lower layers are not above the initial ones, as `wtdiag baseline` measured it."""
    frozen = None if view.baseline is None else view.baseline.arms.get("frozen")
    if view.baseline is None or frozen is None or frozen.gain_low > limit("frozen_gain"):
        return
    last = len(view.steps) - 1
    yield Sighting(
        None,
        last,
        last,
        "medium",
        f"A last layer on the learned features is right in {100 * (frozen.accuracy + frozen.gain):.1f} % of the test "
        f"examples, one on the initial features in {100 * frozen.accuracy:.1f} %: {100 * frozen.gain:+.1f} points "
        f"[{100 * frozen.gain_low:+.1f}, {100 * frozen.gain_high:+.1f}].",
        (
            Evidence(
                "baseline_gain", 100 * frozen.gain_low, 100 * limit("frozen_gain"), "<", "points", int(view.steps[last])
            ),
        ),
    )
