"""Product feedback alignment: the feedback is a fixed random matrix times a learned one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.probes.errors import InputError
from wtdiag.trainers.rules.base import choice, positive, register
from wtdiag.trainers.rules.factored import Factored

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class ProductFeedbackAlignment(Factored):
    """Product feedback alignment: no forward weight has a feedback weight that mirrors it, but the product does.

    Q is fixed and R takes the updates that Kolen-Pollack gives it, with the optimiser, the rate and the decay of W. B
    comes to rest at Q Qᵀ W. The deviation of a Gaussian Q, √(1 / (density · middle)), makes E[Q Qᵀ] the identity; it is
    Xavier's with the gain √((1 + 1 / expand) / 2 / density). With the identity for Q, the rule is `kp`.

    ``left`` says what Q is. ``expand`` is the number of middle units over that of outputs, and ``density`` the share of
    the entries of a Gaussian Q that are not zero. An orthogonal Q has orthonormal rows, or columns if it narrows. The
    default of ``expand`` is our choice: the wider the middle is, the nearer Q Qᵀ comes to the identity.
    """

    name = "pfa"
    title = "Product feedback alignment"
    equation = "dx = Rᵀ δ, δ = Qᵀ dy, ∂W = dy xᵀ + λW, ∂R = δ xᵀ + λR, Q fixed; B = Q R"
    flops = "2/3 + min(1 + 2*m/n, 1 + m/n + m/fan + m/out, m/fan + m/out + m/n, m/fan + 2*m/out) / 3"
    reference = "Li & Benna 2024, arXiv:2405.20594"

    left: str = choice("gaussian", "gaussian", "orthogonal", "identity", about="what Q is at first, and stays")
    expand: float = positive(4.0, initial=True, about="middle units over outputs")
    density: float = positive(1.0, initial=True, about="share of the entries of a Gaussian Q that are not zero")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density > 1:
            raise InputError(f"pfa: density: expected a share of at most 1, got {self.density!r}")
        if self.density < 1 and self.left != "gaussian":
            raise InputError(f"pfa: density: only a gaussian left factor can be sparse, got left={self.left!r}")

    def middle(self, outputs: int) -> int:
        return outputs if self.left == "identity" else max(1, round(self.expand * outputs))

    def init_left(self, left: Tensor) -> None:
        import torch  # here, because settings and the command line read the rules without torch

        if self.left == "identity":
            torch.nn.init.eye_(left)
        elif self.left == "orthogonal":
            torch.nn.init.orthogonal_(left)
        else:
            left.normal_(0.0, math.sqrt(1 / (self.density * left.shape[1])))
            if self.density < 1:
                left.mul_(torch.rand_like(left) < self.density)
