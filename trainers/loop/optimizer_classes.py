"""The optimisers of a run, built by name from `probes.records.optimizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


class MatrixMuon(torch.optim.Muon):
    """PyTorch's Muon, also for tensors of more than two dims, each as a matrix of its first dim by all others.

    A convolution's kernels are so taken in Jordan's code too (github.com/KellerJordan/Muon). Steps are scaled by
    0.2 √max(rows, columns), so that their size is that of AdamW's steps at the same rate: Liu et al. 2025,
    arXiv:2502.16982.

    Examples
    --------
    >>> kernels = torch.nn.Parameter(torch.zeros(2, 1, 1, 3))
    >>> kernels.grad = torch.tensor([[[[3.0, 0.0, 0.0]]], [[[0.0, 0.0, 5.0]]]])
    >>> MatrixMuon([{"params": [kernels]}], lr=1.0).step()
    >>> kernels.flatten(1).abs().gt(0.2).int()
    tensor([[1, 0, 0],
            [0, 0, 1]], dtype=torch.int32)
    """

    def __init__(self, groups: Sequence[Group], *, lr: float) -> None:
        matrix = torch.nn.Parameter(torch.zeros(1, 1))  # PyTorch's class refuses other tensors only when it is made
        super().__init__([matrix], lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.param_groups.clear()
        for group in groups:
            self.add_param_group(group)

    def _init_group(
        self, group: Any, params_with_grad: list[Tensor], grads: list[Tensor], muon_momentum_bufs: list[Tensor]
    ) -> bool:
        held: tuple[list[Tensor], ...] = ([], [], [])
        super()._init_group(group, *held)
        for tensors, matrices in zip(held, (params_with_grad, grads, muon_momentum_bufs), strict=True):
            matrices += [_as_matrix(tensor, like=p) for tensor, p in zip(tensors, held[0], strict=True)]
        return False


def build(kind: str, groups: list[Group], **of_sgd: Any) -> torch.optim.Optimizer:
    """Return the optimiser ``kind`` of some groups, at a rate that the caller sets before each step.

    ``of_sgd`` are the options that SGD alone takes: momentum, nesterov and fused.
    """
    # A fused optimiser makes one pass over memory for each parameter, so that a second set of weights is affordable.
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, **of_sgd)
    if kind == "muon":
        return MatrixMuon(groups, lr=0.0)
    fused = {"fused": True} if kind in ("adam", "adamw", "adagrad") else {}
    optimizer: torch.optim.Optimizer = _CLASSES[kind](groups, lr=0.0, **fused)
    return optimizer


_CLASSES: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a view of a tensor as a matrix of its first dim by the others, in the order in which ``like`` has them.

    Muon's step does not depend on the order of the columns, but it has to be one for the parameter and its gradient.
    """
    if not like.is_contiguous():  # kernels with the channels last
        tensor = tensor.movedim(1, -1)
    return tensor.view(len(tensor), -1)
