"""Feedback alignment: a fixed random B suffices, because W comes to align with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import RandomFeedback, register, share

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(RandomFeedback):
    """Feedback alignment. ``scale`` is the standard deviation of M in units of the layer's He deviation.

    With ``soft`` = ρ, B is partly aligned with the W that the network starts from, as in soft alignment
    (arXiv:2505.20892); this mix of W₀ and M is ours. Afterwards B stays as it is, and nothing of W is copied. Of the
    rules with fixed feedback only this one has it: under direct rules B has W's shape in the last layer alone, and
    under sign symmetry it follows W anyway.
    """

    name = "fa"
    title = "Feedback alignment"
    equation = "dx = Bᵀ dy, B = ρ W₀ + √(1 − ρ²) M fixed, M ~ N(0, scale² · 2 / fan-in), ρ = soft"
    reference = "Lillicrap et al. 2016, Nature Communications 7:13276"
    flops = "1"

    soft: float = share(0.0, initial=True, about="ρ, the share of the initial W in B")

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        super().init_feedback(feedback, std, weight)
        if self.soft:  # M is drawn in any case, so that runs that differ in ρ alone differ in nothing else
            feedback.mul_(math.sqrt(1 - self.soft**2)).add_(weight, alpha=self.soft)
