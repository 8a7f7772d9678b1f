"""The quantities at one layer from which a rule lets its weights learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.layers.operations import Operation


@dataclass
class Local:
    """The quantities that a synapse knows when its feedback weights learn; all tensors are detached.

    Of ``y`` (W x, without bias), ``weight``, ``bias`` and ``weight_grad`` (that of the task), those that the rule's
    ``shares`` names are given; the others may be None, but ``weight_grad`` is given whenever the rule is asked for that
    of W.
    ``positions`` is the number of times that one example uses the weights if the first axis of ``x`` counts the
    examples. ``batch_axis`` is the axis that does count them, or None if it is not known. Only rules that draw noise in
    the forward pass are given ``noise``, that at the layer's input, and, of the mean loss, ``error``, that at its
    output, and ``change``, (example,), which noise at all layers causes.
    """

    op: Operation
    x: Tensor
    feedback: Tensor
    positions: int
    y: Tensor = None  # type: ignore[assignment]
    weight: Tensor = None  # type: ignore[assignment]
    weight_grad: Tensor = None  # type: ignore[assignment]
    batch_axis: int | None = 0
    bias: Tensor | None = None
    noise: Tensor = None  # type: ignore[assignment]
    error: Tensor = None  # type: ignore[assignment]
    change: Tensor = None  # type: ignore[assignment]

    def apply(self, x: Tensor) -> Tensor:
        """Return B x."""
        return self.op.apply(x, self.feedback.to(x.dtype))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return Bᵀ y."""
        return self.op.adjoint(y, self.feedback.to(y.dtype), self.x)

    def outer(self, x: Tensor, y: Tensor) -> Tensor:
        """Return Σ y xᵀ over batch and positions, in B's shape and precision."""
        return self.op.outer(x, y, self.feedback).to(self.feedback.dtype)

    def outer_onto(self, x: Tensor, y: Tensor, matrix: Tensor, scale: float) -> Tensor:
        """Return Σ y xᵀ over batch and positions, plus scale · matrix, in B's shape and precision."""
        total = self.op.outer_onto(x, y, matrix, scale)
        return add_scaled(self.outer(x, y), matrix, scale, in_place=True) if total is None else total

    def examples(self, reduction: str) -> int:
        """Return the number by which a sum over the batch is divided: examples, times positions for a mean over them.

        That product does not depend on which axis counts the examples.
        """
        count = 1
        if self.x.dim() > 1 and reduction == "mean":
            count = self.x.shape[0] * self.positions
        elif self.x.dim() > 1:
            assert self.batch_axis is not None, "the layer refuses such inputs"
            count = self.x.shape[self.batch_axis]
        return max(1, count)  # an empty batch sums to zero

    def mirror(self, noise: str, std: float) -> Local:
        """Return the same synapse in the mirror phase: driven by fresh iid noise instead of its input."""
        x = noise_like(self.x, noise, std)
        y = self.op.apply(x, self.weight.to(x.dtype))
        return Local(self.op, x, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)

    def driven_back(self, noise: str, std: float, like: Tensor | None = None) -> Local:
        """Return the same synapse with fresh iid noise in place of its output; of its input only the shape counts.

        ``like`` has the shape and the precision of the output; without it, the output is computed for them.
        """
        y = noise_like(self._like_output() if like is None else like, noise, std)
        return Local(self.op, self.x, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)

    def riding(self, noise: str, std: float) -> Local:
        """Return the same synapse with the noise on its activity for its input, and y less its mean over the batch.

        y is multiplied by n / (n − 1) for n examples, which makes the products with the noise of their own unbiased.
        """
        y = self.y
        if y.dim() > 1:
            assert self.batch_axis is not None, "the layer refuses such inputs"
            n = y.shape[self.batch_axis]
            y = (y - y.mean(self.batch_axis, keepdim=True)) * (n / max(1, n - 1))
        return Local(self.op, self.noise, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)

    def detached(self) -> Local:
        """Return the same synapse with an input and an output that no backward pass through this one reaches."""
        y = self.y if self.y is None else self.y.detach()
        bias = self.bias if self.bias is None else self.bias.detach()
        given = self.op, self.x.detach(), self.feedback, self.positions, y, self.weight
        return Local(*given, batch_axis=self.batch_axis, bias=bias)

    def without_task(self) -> Local:
        """Return the same synapse with zero for the gradient of the task by W."""
        return replace(self, weight_grad=self.weight.new_zeros(self.weight.shape))

    def _like_output(self) -> Tensor:
        """Return a tensor of the output's shape and precision."""
        return self.op.apply(self.x, self.weight.to(self.x.dtype)) if self.y is None else self.y


def noise_like(x: Tensor, noise: str, std: float) -> Tensor:
    """Return fresh iid noise in the shape of x, "normal" or "uniform", of zero mean and this standard deviation."""
    import torch  # here, because settings and the command line read the rules without torch

    if noise == "normal":
        return torch.randn_like(x).mul_(std)
    return torch.rand_like(x).sub_(0.5).mul_(std * 12**0.5)


def add_scaled(total: Tensor, term: Tensor, scale: float, *, in_place: bool = False) -> Tensor:
    """Return total + scale · term.

    ``alpha=`` saves a pass over memory. But if ``total`` is a matrix product, inductor fuses the sum into it and drops
    alpha (pytorch/pytorch#167313), so compiled code multiplies instead; it fuses the multiplication anyway.
    """
    import torch  # as above

    if torch.compiler.is_compiling():
        term, scale = term * scale, 1
    return total.add_(term, alpha=scale) if in_place else total.add(term, alpha=scale)
