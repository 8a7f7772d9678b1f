"""The forward and backward passes of one step, which leave the gradients of the whole batch, whoever computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from wtdiag.trainers.loop.distributed import Ranks, Share


class Passes:
    """The passes of a network over the pieces of each batch, one after another.

    A gradient of the batch is the mean of the pieces' gradients, each with its share of the examples. The loss is not
    multiplied by that share, as is usual: B's local gradient and a rule's decay of W do not come from the loss.

    Parameters
    ----------
    network
        The network as `Ranks.wrap` returned it.
    pieces
        Number of pieces into which a batch is split.
    ranks
        This process among those that train the run.
    """

    def __init__(self, network: nn.Module, pieces: int, ranks: Ranks) -> None:
        self._network, self._pieces, self._ranks = network, pieces, ranks

    def run(
        self, x: Tensor, y: Tensor, share: Share, loss_of: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of the whole batch, of which this process has the examples of its share.

        Parameters
        ----------
        x, y
            These examples and their targets.
        share
            The share that they are of the batch.
        loss_of
            A function of the network, inputs and targets that returns the output and its mean loss.
        """
        count = len(y)
        pieces = max(1, min(self._pieces, count // 2))  # batch norm needs two examples
        ends = [count * number // pieces for number in range(pieces + 1)]
        losses, rights, before = [], [], 0.0
        for start, stop in pairwise(ends):
            weight = (stop - start) / count
            if before not in (
                0.0,
                weight,
            ):  # until they are added, the gradients so far are in units of the last weight
                _scale(self._network.parameters(), before / weight)
            before = weight
            self._ranks.weigh(share.weight * weight)
            later = stop < count and not self._ranks.is_alone
            with self._network.no_sync() if later else nullcontext():  # type: ignore[operator]
                output, loss = loss_of(self._network, x[start:stop], y[start:stop])
                loss.backward()  # type: ignore[no-untyped-call]
            right = (output.detach().argmax(1) == y[start:stop]).double().mean()
            losses.append(loss.detach() * weight if pieces > 1 else loss.detach())
            rights.append(right * weight)
        if self._ranks.is_alone and before != 1:
            _scale(self._network.parameters(), before)
        mean_loss, accuracy = self._ranks.mean(share.weight, _sum(losses), _sum(rights))
        return mean_loss, accuracy


def _sum(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def _scale(parameters: Iterable[Tensor], factor: float) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, factor)
