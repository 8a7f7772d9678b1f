"""What a rule sees: the quantities at one layer from which its weights may learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.layers.operations import Operation


@dataclass
class Local:
    """What a synapse can see when its feedback weights learn; all tensors are detached.

    ``y`` (W x, without bias), ``weight`` and ``weight_grad`` are there only if the rule's ``shares`` asks for them;
    ``positions`` is how often one example uses the weights, where the first axis of ``x`` counts the examples, and
    ``batch_axis`` is the axis that does count them, or None if it is not known.
    """

    op: Operation
    x: Tensor
    feedback: Tensor
    positions: int
    y: Tensor = None  # type: ignore[assignment]
    weight: Tensor = None  # type: ignore[assignment]
    weight_grad: Tensor = None  # type: ignore[assignment]
    batch_axis: int | None = 0

    def apply(self, x: Tensor) -> Tensor:
        """Return B x."""
        return self.op.apply(x, self.feedback.to(x.dtype))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return Bᵀ y."""
        return self.op.adjoint(y, self.feedback.to(y.dtype), self.x)

    def outer(self, x: Tensor, y: Tensor) -> Tensor:
        """Return Σ y xᵀ over batch and positions, in B's shape and precision."""
        return self.op.outer(x, y, self.feedback).to(self.feedback.dtype)

    def examples(self, reduction: str) -> int:
        """Return what a sum over the batch is divided by: examples, times positions if they are averaged.

        Examples times positions are the same whichever axis counts the examples.
        """
        count = 1
        if self.x.dim() > 1 and reduction == "mean":
            count = self.x.shape[0] * self.positions
        elif self.x.dim() > 1:
            assert self.batch_axis is not None, "the layer refuses such inputs"
            count = self.x.shape[self.batch_axis]
        return max(1, count)  # an empty batch sums to zero

    def mirror(self, noise: str, std: float) -> Local:
        """Return the same synapse driven by fresh iid noise instead of its input: the mirror phase."""
        if noise == "normal":
            x = torch.randn_like(self.x).mul_(std)
        else:
            x = torch.rand_like(self.x).sub_(0.5).mul_(std * 12**0.5)
        y = self.op.apply(x, self.weight.to(x.dtype))
        return Local(self.op, x, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)


def add_scaled(total: Tensor, term: Tensor, scale: float, *, in_place: bool = False) -> Tensor:
    """Return total + scale · term.

    ``alpha=`` saves a pass over memory. But where ``total`` is a matrix product, inductor fuses the sum into it and
    drops alpha (pytorch/pytorch#167313), so compiled code, which fuses the multiplication anyway, does without.
    """
    if torch.compiler.is_compiling():
        term, scale = term * scale, 1
    return total.add_(term, alpha=scale) if in_place else total.add(term, alpha=scale)
