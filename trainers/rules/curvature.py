"""The curvature of a rule that is a sum of primitives: matrices that replace passes over the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.primitives import gradient

if TYPE_CHECKING:
    from torch import Tensor

_PRODUCTS = 40  # as many products with H are usual: a matrix has to pay for itself within them
_LARGEST = 2**23  # entries of a matrix
_HELD = 2**24  # entries of an unfolded batch that are held at a time


@dataclass(frozen=True)
class Curvature:
    """The symmetric H of the gradient ∂B = H B − T: H B = decay · B + L B + B R.

    L acts on the first axis of B together with the axes of the kernel, R on the second with those of the kernel. Both
    are (groups, size, size), and None where they are zero.

    Examples
    --------
    >>> import torch
    >>> Curvature(0.5, right=torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]))(torch.ones(1, 2))
    tensor([[2.5000, 3.5000]])
    """

    decay: float = 0.0
    left: Tensor | None = None
    right: Tensor | None = None

    def __call__(self, feedback: Tensor) -> Tensor:
        """Return H B."""
        total = self.decay * feedback
        if self.right is not None:
            rows = feedback.reshape(len(self.right), -1, self.right.shape[-1])
            total += (rows @ self.right).reshape(feedback.shape)
        if self.left is not None:
            groups, size = self.left.shape[:2]
            kernel = math.prod(feedback.shape[2:])
            outer = feedback.reshape(groups, size // kernel, -1, kernel).transpose(2, 3)
            product = (self.left @ outer.reshape(groups, size, -1)).reshape(outer.shape)
            total += product.transpose(2, 3).reshape(feedback.shape)
        return total

    def of_group(self, group: int) -> Curvature:
        """Return H of one group of channels."""
        left, right = (None if part is None else part[group : group + 1] for part in (self.left, self.right))
        return Curvature(self.decay, left, right)

    def __add__(self, other: Curvature) -> Curvature:
        return Curvature(self.decay + other.decay, _sum(self.left, other.left), _sum(self.right, other.right))

    def __mul__(self, scale: float) -> Curvature:
        left, right = (None if part is None else scale * part for part in (self.left, self.right))
        return Curvature(scale * self.decay, left, right)


def curvature(s: Local, coefficients: Mapping[str, float], *, reduction: str) -> Curvature | None:
    """Return the curvature of a sum of primitives; None if products with it are cheaper without its matrices.

    The matrix of ``sparse`` is E[x xᵀ], and that of ``null`` E[y yᵀ], over all patches. It is the primitive's gradient
    at a B that is the identity.

    Parameters
    ----------
    s, coefficients, reduction
        As for `trainers.rules.primitives.gradient`.
    """
    if not s.op.structured and any(coefficients.get(name) for name in ("sparse", "null")):
        return None
    total = Curvature(coefficients.get("decay", 0.0) / s.op.uses)
    for name in ("sparse", "null"):
        if not coefficients.get(name):
            continue
        side = "right" if (name == "sparse") != s.op.transposed else "left"
        matrix = _matrix(s, {name: coefficients[name]}, reduction, side)
        if matrix is None:
            return None
        total += Curvature(left=matrix) if side == "left" else Curvature(right=matrix)
    return total


def _matrix(s: Local, coefficients: Mapping[str, float], reduction: str, side: str) -> Tensor | None:
    """Return the matrix of one primitive, (groups, size, size), as its gradient at the identity."""
    import torch  # here, because settings and the command line read the rules without torch

    shape, groups = s.feedback.shape, getattr(s.op, "groups", 1)
    kernel = math.prod(shape[2:])
    rows, columns = shape[0] // groups, shape[1]
    size = (rows if side == "left" else columns) * kernel
    batched = s.x.dim() == s.feedback.dim() if s.op.channels_first else s.x.dim() > 1
    used = len(s.x) * s.positions  # times that the weights are used
    build, product, direct = 4 * size**2 * groups * used, 2 * s.feedback.numel() * size, 4 * s.feedback.numel() * used
    if not batched or groups * size**2 > _LARGEST or build + _PRODUCTS * product > _PRODUCTS * direct:
        return None
    identity = torch.eye(size, dtype=s.feedback.dtype, device=s.feedback.device)
    one = identity.view(size, *shape[1:]) if side == "right" else identity.view(size, rows, *shape[2:]).transpose(0, 1)
    unit = one.repeat(groups, *(1 for _ in shape[1:]))
    total = torch.zeros_like(unit)
    at_once = max(1, _HELD * len(s.x) // (groups * size * used))
    for first in range(0, len(s.x), at_once):
        x, y = (part if part is None else part[first : first + at_once] for part in (s.x, s.y))
        share = len(x) / len(s.x)
        if "null" in coefficients:  # which sends an error with the identity's channels down, to an x of which only the
            shape_x = [*x.shape]  # shape matters
            shape_x[1 if s.op.channels_first else -1] = groups * size
            x = x.new_empty(shape_x)
        # Not `dataclasses.replace`, because a mirrored synapse takes other arguments.
        part = Local(s.op, x, unit, s.positions, y)
        total.add_(gradient(part, coefficients, reduction=reduction), alpha=share)
    if side == "left":
        total = total.view(groups, rows, size, kernel).transpose(2, 3)
    return total.reshape(groups, size, size)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second
