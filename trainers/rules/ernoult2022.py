"""Feedback that descends the local difference reconstruction loss: symmetric alignment, estimated from noise alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import (
    OF_NOISE,
    OF_NOISE_STD,
    OF_REDUCTION,
    RandomFeedback,
    choice,
    number,
    positive,
    register,
)
from wtdiag.trainers.rules.curvature import Curvature, curvature
from wtdiag.trainers.rules.primitives import gradient, loss

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local


@register
@dataclass(frozen=True, kw_only=True)
class DifferenceReconstruction(RandomFeedback):
    """Local difference reconstruction loss of one layer: noise ξ at its input, and other noise ζ at its output.

    For noise of variance σ², E[∂B] = amp · σ² (B − W), so B comes to rest at W itself, as under symmetric alignment,
    but the layer only measures its own responses to noise. With ``amp`` = 2, B descends − 2 ⟨ξ, Bᵀ W ξ⟩ + ‖Bᵀ ζ‖².
    Where a kernel reaches over the border of a map, fewer products make up an entry of ∂B, which is smaller; the
    resting point is the same. Only this learning of B is taken from the paper, and not its difference targets.

    ``noise`` and ``noise_std`` are the distribution of ξ and ζ, "normal" or "uniform", and σ. ``reduction`` is "mean"
    or "sum" over the positions of a convolution or a sequence.
    """

    name = "ldrl"
    title = "Local difference reconstruction loss"
    equation = "∂B = amp · (E[ζ ζᵀ] B − E[y ξᵀ]), ξ and ζ noise, y = W ξ"
    flops = "7/3"
    reference = "Ernoult et al. 2022, ICML; the form for one linear layer is derived"
    learned = True
    shares = frozenset({"weight"})
    inputs = "noise"

    amp: float = number(0.1, about="strength with which noise pulls B towards W")
    noise: str = choice("normal", "normal", "uniform", about=OF_NOISE)
    noise_std: float = positive(1.0, about=OF_NOISE_STD)
    reduction: str = choice("mean", "mean", "sum", about=OF_REDUCTION)

    @property
    def counts_examples(self) -> bool:  # type: ignore[override]
        """Whether a sum over positions is averaged over the examples."""
        return self.reduction == "sum"

    def feedback_grad(self, s: Local) -> Tensor:
        return sum(
            gradient(driven, {term: self.amp}, reduction=self.reduction) for term, driven in self._driven(s).items()
        )  # type: ignore[return-value]

    def feedback_loss(self, s: Local) -> Tensor:
        return sum(loss(driven, {term: self.amp}, reduction=self.reduction) for term, driven in self._driven(s).items())  # type: ignore[return-value]

    def curvature(self, s: Local) -> Curvature | None:
        return curvature(s.driven_back(self.noise, self.noise_std), {"null": self.amp}, reduction=self.reduction)

    def _driven(self, s: Local) -> dict[str, Local]:
        """Return the layer driven by noise at its input and at its output, by the primitive that it gives."""
        mirrored = s.mirror(self.noise, self.noise_std)
        return {"amp": mirrored, "null": s.driven_back(self.noise, self.noise_std, like=mirrored.y)}
