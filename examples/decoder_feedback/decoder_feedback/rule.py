"""Feedback that learns to reconstruct the input of its layer from the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import RandomFeedback, Recipe, register

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local


@register
@dataclass(frozen=True, kw_only=True)
class Decoder(RandomFeedback):
    """Feedback as a decoder: Bᵀ learns to give back the input x of its layer from the output y = W x."""

    name = "decoder"
    title = "Feedback that reconstructs"
    equation = "∂B = − rate · E[y (x − Bᵀ y)ᵀ] + decay · B"
    reference = "an example of wtdiag's documentation"
    learned = True
    shares = frozenset({"output"})
    recipe = Recipe(optimizer="adam", lr=0.005)

    rate: float = 1.0
    decay: float = 0.01

    def feedback_grad(self, s: Local) -> Tensor:
        missing = s.x - s.adjoint(s.y)
        return s.outer(missing, s.y) * (-self.rate / s.examples("mean")) + self.decay * s.feedback

    def feedback_loss(self, s: Local) -> Tensor:
        missing = s.x - s.adjoint(s.y)
        reconstruction = missing.square().sum() / 2 / s.examples("mean")
        return self.rate * reconstruction + self.decay / 2 * s.feedback.square().sum()
