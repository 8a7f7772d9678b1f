"""The base class of direct rules: each layer's error is a projection of the output error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import Rule, positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Direct(Rule):
    """A rule whose B sends the network's output error straight to the input of each layer.

    B has the dims (class, input of one example), so it has W's shape only in the last layer.
    ``scale`` is B's standard deviation in units of √(1 / classes).
    """

    counts_examples = True

    scale: float = positive(1.0, initial=True)

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        feedback.normal_(0.0, self.scale * feedback.shape[0] ** -0.5)

    def signal(self, error: Tensor, output: Tensor) -> Tensor:
        """Return the signal that is projected, (batch, classes), given the network's output and its error."""
        return error

    def projection_grad(self, signal: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """Return B's local gradient from the signal, (batch, classes), and x, (batch, *input of one example).

        Where B does not distinguish positions, x is summed over them.
        """
        raise TypeError(f"{self.name} has fixed feedback weights")
