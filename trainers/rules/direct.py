"""What direct rules share: each layer's error is a fixed random projection of the output's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import Rule, positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Direct(Rule):
    """The error below a layer is B applied to the network's output error, whatever lies between.

    B has dims (class, input of one example): it is W's shape in the last layer only.
    ``scale`` is B's standard deviation in units of √(1 / classes).
    """

    counts_examples = True

    scale: float = positive(1.0, initial=True)

    def init_feedback(self, feedback: Tensor, std: float) -> None:
        feedback.normal_(0.0, self.scale * feedback.shape[0] ** -0.5)

    def signal(self, error: Tensor, output: Tensor) -> Tensor:
        """Return what is projected, (batch, classes), given the network's output and the loss gradient there."""
        return error
