"""The base class of direct rules: each layer's error is a projection of the output error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import Rule, choice, positive

if TYPE_CHECKING:
    from torch import Tensor

_SHARED = 0x5EED_0F_B


@dataclass(frozen=True, kw_only=True)
class Direct(Rule):
    """A rule whose B sends the network's output error straight to the input of each layer.

    B has the dims (class, input of one example), so it has W's shape only in the last layer.
    With ``projection="own"`` each B is normal, and ``scale`` is its standard deviation in units of √(1 / classes). With
    "shared" all of them are the first rows of one matrix, uniform on [−scale, scale), divided by √(size of the input):
    Launay et al. 2020, NeurIPS, arXiv:2006.12878.
    """

    counts_examples = True
    affine = False  # the output's error follows no law of one layer

    scale: float = positive(
        1.0, initial=True, about="size of B at first, in units of √(1 / classes), or of √(1 / inputs) if it is shared"
    )
    projection: str = choice(
        "own",
        "own",
        "shared",
        initial=True,
        about="own: each layer has a normal B of its own; shared: all are the first rows of one uniform matrix",
    )

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        if self.projection == "own":
            feedback.normal_(0.0, self.scale * feedback.shape[0] ** -0.5)
            return
        import torch

        size = feedback[0].numel()
        # A generator of its own starts anew for every layer; its seed follows that of the network, but draws other
        # numbers than W's initial weights.
        generator = torch.Generator().manual_seed((torch.initial_seed() + _SHARED) % 2**63)
        rows = torch.empty(size, feedback.shape[0], dtype=torch.float64).uniform_(-1.0, 1.0, generator=generator)
        feedback.copy_((self.scale * size**-0.5 * rows).T.reshape(feedback.shape))

    def signal(self, error: Tensor, output: Tensor) -> Tensor:
        """Return the signal that is projected, (batch, classes), given the network's output and its error."""
        return error

    def projection_grad(self, signal: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """Return B's local gradient from the signal, (batch, classes), and x, (batch, *input of one example).

        Where B does not distinguish positions, x is summed over them.
        """
        raise TypeError(f"{self.name} has fixed feedback weights")
