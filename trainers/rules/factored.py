"""The base class of rules whose feedback is a product of two factors: a left one, and a right one that learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.akrout2019 import KolenPollack

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Factored(KolenPollack):
    """A rule with B = P R: the error is narrowed or widened to δ = Pᵀ dy, and R sends δ down, dx = Rᵀ δ.

    The left factor P acts on the axis of outputs, (groups, out / groups, middle / groups). The right factor R has W's
    shape with as many middle units in place of the outputs. R learns by Kolen-Pollack from δ in place of dy:
    ∂R = δ xᵀ + λR. So B moves by P ∂R = P Pᵀ dy xᵀ + λB, and if W stands still it comes to rest at P Pᵀ W.
    """

    learns_left = False
    """Whether P learns too, with a local gradient from `left_grad`."""

    def middle(self, outputs: int) -> int:
        """Return the number of middle units for so many outputs; both are those of one group."""
        raise NotImplementedError

    def init_left(self, left: Tensor) -> None:
        """Fill P, (out, middle) of one group, at conversion."""
        raise NotImplementedError

    def left_grad(self, left: Tensor, dy: Tensor, delta: Tensor) -> Tensor:
        """Return P's gradient of one pass, (groups, out, middle), from dy and δ, (groups, number, out or middle)."""
        raise TypeError(f"{self.name} has a fixed left factor")
