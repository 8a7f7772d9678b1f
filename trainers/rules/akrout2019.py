"""Weight mirror and Kolen-Pollack: two ways to learn a B that follows W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import RandomFeedback, Recipe, choice, number, register
from wtdiag.trainers.rules.curvature import Curvature
from wtdiag.trainers.rules.local import Local, add_scaled
from wtdiag.trainers.rules.primitives import term
from wtdiag.trainers.rules.regularised import OF_INPUTS, Regularised

if TYPE_CHECKING:
    from torch import Tensor

_AKROUT = "Akrout et al. 2019, NeurIPS, arXiv:1904.05391"


@register
@dataclass(frozen=True, kw_only=True)
class WeightMirror(Regularised):
    """Weight mirror with a separate mirror phase, in which each layer receives fresh noise of its own.

    Because E[y xᵀ] = σ² W for iid noise x of variance σ², B moves towards W; decay bounds it, at amp σ² / decay · W.
    """

    name = "wm"
    title = "Weight mirror (mirror phase on noise)"
    equation = "∂B = − amp · E[y xᵀ] + decay · B, x noise, y = W x"
    flops = "5/3"
    reference = _AKROUT + ", eq. 7; decay in place of its normalisation"

    inputs: str = choice("noise", "activations", "noise", about=OF_INPUTS)
    amp: float = term("amp", 0.1)
    decay: float = term("decay", 0.1)


@register
@dataclass(frozen=True, kw_only=True)
class KolenPollack(RandomFeedback):
    """Kolen-Pollack: W and B take the same update and the same decay, so each step multiplies W − B by 1 − ηλ.

    The decay belongs to the rule and is part of both gradients: leave the optimiser's own weight decay at zero for W,
    or give both parameters the same weight decay. A λ of 0.05 shrinks W faster than a convolutional network learns in
    a few epochs at its default rate (docs/recipes.md).
    """

    name = "kp"
    title = "Kolen-Pollack"
    equation = "∂W = dy xᵀ + λW, ∂B = dy xᵀ + λB"
    flops = "1"
    reference = "Kolen & Pollack 1994, ICNN; " + _AKROUT
    learned = True
    shares = frozenset({"weight", "weight_grad"})
    recipe = Recipe(optimizer="forward")

    decay: float = number(0.01, about="λ, by which both W and B decay: a step multiplies them by 1 − ηλ")

    def feedback_grad(self, s: Local) -> Tensor:
        return add_scaled(s.weight_grad, s.feedback, self.decay / s.op.uses)

    def feedback_loss(self, s: Local) -> Tensor:
        return (s.weight_grad * s.feedback).sum() + self.decay / 2 * s.feedback.square().sum()

    def curvature(self, s: Local) -> Curvature:
        return Curvature(self.decay / s.op.uses)

    def weight_grad(self, s: Local) -> Tensor:
        # In W's precision, like B's gradient: if it were rounded under autocast, W − B would no longer contract.
        return add_scaled(s.weight_grad.to(s.weight.dtype), s.weight, self.decay / s.op.uses, in_place=True)
