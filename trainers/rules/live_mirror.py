"""Weight mirror without phases: the noise that it needs rides on the activity from which the task learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import OF_NOISE_STD, OF_REDUCTION, choice, number, positive, register
from wtdiag.trainers.rules.curvature import Curvature
from wtdiag.trainers.rules.perturbed import Perturbed
from wtdiag.trainers.rules.primitives import gradient, loss, term

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local


@register
@dataclass(frozen=True, kw_only=True)
class LiveMirror(Perturbed):
    """Weight mirror without phases: W and B learn from the same forward pass, in which noise ξ rides on the activity.

    The output y − ȳ follows the noise by W, so that E[∂B] = decay · B − amp · W, whatever σ = ``noise_std`` is: more
    noise disturbs the task, and less makes B noisier. ȳ stands for a neuron's running mean and is the mean over the
    batch, for each unit and position; the product is multiplied by n / (n − 1), because each of the n examples is a
    part of their mean. A batch of one only lets B decay. ``reduction`` is "mean" or "sum" over the positions of a
    convolution or a sequence.
    """

    name = "wm-live"
    title = "Weight mirror without phases (noise on the activity)"
    equation = "y = W (x + ξ), ∂B = − amp · E[(y − ȳ) ξᵀ] / σ² + decay · B, ξ noise, ȳ the mean of y"
    reference = "the static form of phaseless alignment learning, arXiv:2212.10249; derived"
    shares = frozenset({"output"})
    flops = "4/3"
    inputs = "noise"

    noise_std: float = positive(0.2, about=OF_NOISE_STD)
    amp: float = number(0.03, about="∂B has the term − amp · E[(y − ȳ) ξᵀ] / σ²")
    decay: float = term("decay", 0.03)
    reduction: str = choice("mean", "mean", "sum", about=OF_REDUCTION)

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient of each primitive in this rule, of the noise and the output that it drives."""
        return {"amp": self.amp / self.noise_std**2, "decay": self.decay}

    def feedback_grad(self, s: Local) -> Tensor:
        return gradient(s.riding(self.noise, self.noise_std), self.coefficients, reduction=self.reduction)

    def feedback_loss(self, s: Local) -> Tensor | None:
        driven = None if s.noise is None else s.riding(self.noise, self.noise_std)
        return None if driven is None else loss(driven, self.coefficients, reduction=self.reduction)

    def curvature(self, s: Local) -> Curvature | None:
        return Curvature(self.decay / s.op.uses)
