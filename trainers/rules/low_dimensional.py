"""Low-dimensional feedback: the error passes through few units on its way down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import number, register, whole
from wtdiag.trainers.rules.factored import Factored

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class LowDimensionalFeedback(Factored):
    """Low-dimensional feedback, whose matrix has at most the rank ``rank``; about the number of classes is enough.

    The default is that of the built-in data with the most classes. With fewer middle units than classes, convolutional
    networks hardly learn if P follows the error at the default rate of W; ``oja`` = 0.1 or 0 is better there
    (docs/recipes.md).

    R learns as in Kolen-Pollack from the narrowed error. P starts with orthonormal columns. With ``oja`` it follows
    Oja's subspace rule on dy, and comes to span the leading directions of the error; with ``oja`` = 0 it is fixed. The
    paper says that P follows a rule like Oja's, but its constants are not known to us: the form of the rule, its
    division by the energy of δ, which makes it independent of the size of the error, and the defaults are our choice. B
    comes to rest at P Pᵀ W if P stands still.
    """

    name = "ldfa"
    title = "Low-dimensional feedback alignment"
    equation = "dx = Rᵀ δ, δ = Pᵀ dy, ∂R = δ xᵀ + λR, ∂P = − oja · Σ (dy − P δ) δᵀ / Σ ‖δ‖²; B = P R"
    flops = (
        "2/3 + (min(m/n, m/out) + min(1 + m/n, m/out) + m/fan) / 3 + m / (3*fan) + m*m / (3*out*fan) + m*m / (3*fan*n)"
    )
    reference = "arXiv:2502.20580; the left factor learns by Oja's subspace rule in a form of ours"

    rank: float = whole(36, initial=True, about="middle units, at most the outputs: the highest rank that B can have")
    oja: float = number(1.0, about="rate at which P follows Oja's rule, over the learning rate of W; 0 keeps P fixed")

    @property
    def learns_left(self) -> bool:  # type: ignore[override]
        """Whether P learns."""
        return self.oja != 0

    def middle(self, outputs: int) -> int:
        return min(int(self.rank), outputs)

    def init_left(self, left: Tensor) -> None:
        import torch  # here, because settings and the command line read the rules without torch

        torch.nn.init.orthogonal_(left)

    def left_grad(self, left: Tensor, dy: Tensor, delta: Tensor) -> Tensor:
        energy = delta.square().sum((1, 2), keepdim=True).clamp_min(1e-300 if delta.itemsize == 8 else 1e-30)
        # Σ dy δᵀ − P Σ δ δᵀ
        climbed = dy.mT @ delta - left @ (delta.mT @ delta)
        return climbed.mul_(-self.oja).div_(energy)
