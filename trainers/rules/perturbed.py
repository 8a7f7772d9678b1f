"""The base class of rules whose feedback learns from noise that is drawn in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import OF_NOISE, OF_NOISE_STD, RandomFeedback, choice, positive
from wtdiag.trainers.rules.local import noise_like

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Perturbed(RandomFeedback):
    """A rule for whose B each layer draws iid noise ξ at its input, anew in each forward pass.

    It rides on the activity from which the task learns, or, if the rule ``passes_twice``, enters the second pass only.
    It is drawn in training, and wherever gradients are recorded; an evaluation has none. ``noise`` and ``noise_std``
    are its distribution, "normal" or "uniform", and its standard deviation.
    """

    learned = True
    counts_examples = True
    noise: str = choice("normal", "normal", "uniform", about=OF_NOISE)
    noise_std: float = positive(0.1, about=OF_NOISE_STD)

    def draw(self, x: Tensor) -> Tensor:
        """Return the noise at a layer's input x."""
        return noise_like(x, self.noise, self.noise_std)
