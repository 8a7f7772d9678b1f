"""Activations computed again in the backward pass, so that memory holds a part of a deep network's at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtdiag.probes.errors import InputError

_FEWEST = 4
"""Fewest modules of a chain for which computing again saves memory."""


class _Recomputed(nn.Sequential):
    """A chain of n modules of which the backward pass holds about √n inputs, and the activations of √n modules."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        modules = list(self)
        size = math.ceil(math.sqrt(len(modules)))
        for first in range(0, len(modules), size):
            part = nn.Sequential(*modules[first : first + size])

            def contexts(part: nn.Module = part) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
                return nullcontext(), _statistics_kept(part)

            input = checkpoint(part, input, use_reentrant=False, context_fn=contexts)  # noqa: A001
        return input


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Let batch norm leave its running statistics alone, which the first pass has brought up to date."""
    norms = [each for each in part.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    norms = [each for each in norms if each.track_running_stats and each.training]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 0.0
    try:
        yield
    finally:
        for each, momentum in zip(norms, momenta, strict=True):
            each.momentum = momentum
            if each.num_batches_tracked is not None:
                each.num_batches_tracked.sub_(1)


def recompute_activations(model: nn.Module) -> None:
    """Let the longest chains of a network compute their activations again in the backward pass, √n modules at a time.

    Results do not change: random numbers are drawn as before, and batch norm takes its statistics once.

    Raises
    ------
    InputError
        If the network has no chain of at least four modules.

    Examples
    --------
    >>> net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(9)))
    >>> recompute_activations(net)
    >>> type(net).__name__
    '_Recomputed'
    """
    chains = list(_chains(model))
    if not chains:
        raise InputError(
            f"checkpoint_activations: {type(model).__name__} has no nn.Sequential of at least {_FEWEST} modules"
        )
    for chain in chains:
        chain.__class__ = _Recomputed


def _chains(module: nn.Module) -> Iterator[nn.Sequential]:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module) >= _FEWEST:
        yield module
    else:
        for child in module.children():
            yield from _chains(child)
