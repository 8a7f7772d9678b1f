"""Direct random target projection: the target is projected in place of the output error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import register
from wtdiag.trainers.rules.direct import Direct

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class DirectRandomTargetProjection(Direct):
    """Direct random target projection.

    The target is derived from the output o and its error e, which under a mean-reduced cross-entropy loss is
    (softmax(o) − q) / N for the target distribution q, smoothed or not: y* is one at the largest entry of q. It is
    projected with the sign that the error has there, and divided by the batch size, as the error is.
    """

    name = "drtp"
    title = "Direct random target projection"
    equation = "dx = −Bᵀ y* / N, y* one-hot, B fixed, B ~ N(0, scale² / classes)"
    flops = "2/3 + c*i / (3*w)"
    reference = "Frenkel, Lefebvre & Bol 2021, Frontiers in Neuroscience 15:629892"

    def signal(self, error: Tensor, output: Tensor) -> Tensor:
        count = max(1, len(error))
        target = (output.float().softmax(1) - count * error.float()).argmax(1, keepdim=True)
        return error.new_zeros(error.shape).scatter_(1, target, -1.0 / count)
