"""How the curvature H in ∂B = H B − T differs from example to example, for rules that are sums of primitives.

``sparse`` acts on each output channel of B by itself, and ``null`` on each input channel, within a group in the same
way on all of them. So everything that batches do to H can be seen on one channel, which is far smaller than B.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wtdiag.trainers.layers.operations import Convolution, Operation
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules.curvature import Curvature
from wtdiag.trainers.rules.ernoult2022 import DifferenceReconstruction
from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.regularised import Regularised

Array = NDArray[Any]

_HELD = 2**22  # entries in memory while the curvatures of single examples are measured


class White(NamedTuple):
    """The curvature of a layer that learns from white noise: a Wishart matrix plus a multiple of the identity."""

    dimension: float
    """Number of entries of B on which one product with the noise acts, plus the excess kurtosis of the noise."""
    samples: int
    """Number of independent products in a step."""
    decay: float


@dataclass(frozen=True)
class ChannelUse:
    """One use of one channel of B, with the operation, the signals and a B of that channel alone."""

    rule: Regularised
    local: Local

    def at(self, feedback: Tensor, examples: slice = slice(None)) -> Local:
        """Return the synapse of this part with a given B, for some examples."""
        s = self.local
        return Local(s.op, s.x[examples], feedback, s.positions, y=s.y[examples], weight=s.weight)


@dataclass(frozen=True)
class Channel:
    """The curvature of one channel of B.

    Attributes
    ----------
    parts : tuple of ChannelUse
        All uses of the layer.
    curvature : Curvature or None
        H of the channel, if it is known as a matrix, without the optimiser's weight decay.
    weight_decay : float
        That of the optimiser of B.
    drawn : float
        Deviation of a batch's mean, relative to that of a batch that is drawn with replacement.
    """

    parts: tuple[ChannelUse, ...]
    curvature: Curvature | None
    weight_decay: float
    drawn: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the channel."""
        return tuple(self.parts[0].local.weight.shape)

    @torch.no_grad()
    def product(self, v: Array) -> Array:
        """Return H v, the mean over the batch."""
        given = self._tensor(v)
        total = self.weight_decay * given
        if self.curvature is not None:
            total = total + self.curvature(given)
        else:
            total = sum((part.rule.feedback_grad(part.at(given)) for part in self.parts), total)
        return np.asarray(total.cpu().numpy(), np.float64)

    @torch.no_grad()
    def deviations(self, basis: Array) -> Array:
        """Return how much the H of each example differs from their mean, between the elements of an orthonormal basis.

        Parameters
        ----------
        basis
            (k, *shape).

        Returns
        -------
        ndarray
            (example, k, k), with a mean of zero. Batches that an epoch draws without replacement differ less from
            their mean than those that are drawn with it, and so do these deviations.
        """
        given = self._tensor(basis)
        examples = len(self.parts[0].local.x)
        total = given.new_zeros(examples, len(given), len(given))
        for part in self.parts:
            largest = max(part.local.x.numel(), part.local.y.numel()) * len(given) // max(1, examples)
            step = max(1, _HELD // max(1, largest))
            for first in range(0, examples, step):
                taken = slice(first, first + step)
                along = [part.rule.squares(part.at(element, taken)) for element in given]
                for same in zip(*along, strict=True):
                    terms = torch.stack([term.flatten(1) for _, term in same], dim=1)
                    total[taken] += same[0][0] * terms @ terms.mT
        return np.asarray(((total - total.mean(0)) * self.drawn).cpu().numpy(), np.float64)

    def _tensor(self, array: Array) -> Tensor:
        x = self.parts[0].local.x
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(x.device, x.dtype)


def channel(
    rule: Rule, op: Operation, x: Tensor, y: Tensor, weight: Tensor, positions: int, group: int = 0
) -> ChannelUse | None:
    """Return one channel of B, of a group of channels, in one use of its layer.

    None if H is the same for all examples, if it acts on the channels of both sides (``sum`` with null and sparse), and
    for a rule that is not a sum of primitives.
    """
    if not (_is_sum(rule) and len(rule.curved) == 1 and len(x) and op.structured):
        return None
    of_inputs = rule.curved == ("null",)
    axis = 1 if op.channels_first else x.dim() - 1
    if isinstance(op, Convolution) and op.groups > 1:
        x, y = (signal.chunk(op.groups, dim=1)[group] for signal in (x, y))
        weight = weight.chunk(op.groups, dim=0)[group]
        op = dataclasses.replace(op, groups=1)
    turned = op.transposed  # then the first axis of W counts the inputs
    weight = weight.narrow(1 if of_inputs != turned else 0, 0, 1)
    if of_inputs:
        x = x.narrow(axis, 0, 1)  # only its shape is used
    else:
        y = y.narrow(axis, 0, 1)
    if not isinstance(op, Convolution):  # convolutions are slow in float64
        x, y, weight = x.double(), y.double(), weight.double()
    return ChannelUse(rule.homogeneous, Local(op, x, weight, positions, y=y, weight=weight))


def strongest_group(rule: Rule, op: Operation, x: Tensor, y: Tensor) -> int:
    """Return the group of channels with the most activity on the side that H depends on."""
    if not (_is_sum(rule) and isinstance(op, Convolution) and op.groups > 1):
        return 0
    groups = (y if rule.curved == ("null",) else x).chunk(op.groups, dim=1)
    return int(torch.stack([group.square().sum() for group in groups]).argmax())


def white(rule: Rule, op: Operation, x: Tensor, y: Tensor, weight: Tensor, positions: int) -> White | None:
    """Return the size of the noise in one use of a layer, for one example.

    Neighbouring patches of a convolution are taken to be independent. None if the rule does not learn from noise, if H
    does not depend on it, or if it acts on the channels of both sides.
    """
    if isinstance(rule, DifferenceReconstruction):
        at_output, decay, uniform = True, 0.0, rule.noise == "uniform"
    elif _is_sum(rule) and rule.inputs == "noise" and len(rule.curved) == 1:
        at_output, decay = rule.curved == ("null",), rule.coefficients.get("decay", 0.0)
        uniform = rule.noise == "uniform" and not at_output  # W x, a sum over the noise, is nearly normal
    else:
        return None
    if not (len(x) and op.structured):
        return None
    axis = 1 if op.channels_first else x.dim() - 1
    if at_output:
        channels, positions = x.shape[axis], x[0].numel() // x.shape[axis]
    else:
        channels, positions = y.shape[axis], positions // op.uses
    return White(weight.numel() / channels - 1.2 * uniform, positions, decay)


def _is_sum(rule: Rule) -> TypeGuard[Regularised]:
    """Return whether a rule's gradient is the sum of its primitives of x and y as they are, in no subclass changed."""
    if not isinstance(rule, Regularised) or not rule.plain:
        return False
    return type(rule).feedback_grad is Regularised.feedback_grad
