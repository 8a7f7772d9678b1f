"""Feedback alignment: a fixed random B suffices, because W comes to align with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.rules.base import Rule, positive, register

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(Rule):
    """Feedback alignment. ``scale`` is B's standard deviation in units of the layer's He deviation."""

    name = "fa"
    title = "Feedback alignment"
    equation = "dx = Bᵀ dy, B fixed, B ~ N(0, scale² · 2 / fan-in)"
    reference = "Lillicrap et al. 2016, Nature Communications 7:13276"

    scale: float = positive(1.0)

    def init_feedback(self, feedback: Tensor, std: float) -> None:
        feedback.normal_(0.0, self.scale * std)
