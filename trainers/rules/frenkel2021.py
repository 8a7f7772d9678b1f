"""Direct random target projection: no output error is needed, the target itself is projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.rules.base import register
from trainers.rules.direct import Direct

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class DirectRandomTargetProjection(Direct):
    """Direct random target projection.

    The target is read off the output error of a mean-reduced classification loss, where the target class has the
    lowest entry: softmax minus one-hot is negative there and nowhere else. The one-hot target is projected with
    that sign, divided by the batch size as the error would be.
    """

    name = "drtp"
    title = "Direct random target projection"
    equation = "dx = −Bᵀ y* / N, y* one-hot, B fixed, B ~ N(0, scale² / classes)"
    reference = "Frenkel, Lefebvre & Bol 2021, Frontiers in Neuroscience 15:629892"

    def signal(self, error: Tensor) -> Tensor:
        target = error.new_zeros(error.shape)
        return target.scatter_(1, error.argmin(1, keepdim=True), -1.0 / error.shape[0])
