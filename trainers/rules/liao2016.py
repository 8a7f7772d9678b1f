"""Sign symmetry: B has the signs of W and nothing else of it.

A weight of exactly zero gives the sign of its zero, so that B keeps its magnitude there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import RandomFeedback, register

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _SignSymmetry(RandomFeedback):
    reference = "Liao, Leibo & Poggio 2016, AAAI; names as in Moskovitz et al. 2018, arXiv:1812.06488"
    tied = True

    def tie(self, weight: Tensor, feedback: Tensor) -> None:
        feedback.copysign_(weight)


@register
@dataclass(frozen=True, kw_only=True)
class UniformSign(_SignSymmetry):
    """Uniform sign-concordant feedback. ``scale`` is |B| in units of the layer's He deviation."""

    name = "usf"
    title = "Uniform sign symmetry"
    equation = "B = s · sign(W), s = scale · √(2 / fan-in)"
    flops = "1"

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        feedback.fill_(self.scale * std)


@register
@dataclass(frozen=True, kw_only=True)
class FixedRandomSign(_SignSymmetry):
    """Fixed random-magnitude sign-concordant feedback. ``scale`` is the deviation of M in He deviations."""

    name = "frsf"
    title = "Fixed random-magnitude sign symmetry"
    equation = "B = |M| ⊙ sign(W), M fixed, M ~ N(0, scale² · 2 / fan-in)"
    flops = "1"


@register
@dataclass(frozen=True, kw_only=True)
class BatchRandomSign(FixedRandomSign):
    """Batch-wise random-magnitude sign-concordant feedback, whose magnitudes are drawn in each forward pass."""

    name = "brsf"
    title = "Batch-wise random-magnitude sign symmetry"
    equation = "B = |M| ⊙ sign(W), M ~ N(0, scale² · 2 / fan-in) drawn anew each step"
    flops = "1"

    def refresh(self, weight: Tensor, feedback: Tensor, std: float) -> None:
        self.init_feedback(feedback, std, weight)
        self.tie(weight, feedback)
