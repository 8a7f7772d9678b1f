"""The optimisers of a run, built by name from `probes.records.optimizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Group = dict[str, Any]


def build(kind: str, groups: list[Group], **of_sgd: Any) -> torch.optim.Optimizer:
    """Return the optimiser ``kind`` of some groups, at a rate that the caller sets before each step.

    ``of_sgd`` are the options that SGD alone takes: momentum, nesterov and fused.
    """
    # A fused optimiser makes one pass over memory for each parameter, so that a second set of weights is affordable.
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, **of_sgd)
    if kind == "muon":
        return _muon(groups)
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


def _muon(groups: Sequence[Group]) -> torch.optim.Muon:
    """Return PyTorch's Muon, which takes tensors of more than two dims as matrices of their first dim by all others.

    A convolution's kernels are so taken in Jordan's code too (github.com/KellerJordan/Muon). Steps are scaled by
    0.2 √max(rows, columns), so that their size is that of AdamW's steps at the same rate: Liu et al. 2025,
    arXiv:2502.16982.
    """
    held = [p for group in groups for p in group["params"]]
    views = {p: nn.Parameter(_as_matrix(p.detach(), like=p)) for p in held if p.dim() > 2}

    def hand_over(*_: Any) -> None:
        """Give the views the gradients of the tensors that they show."""
        for p, view in views.items():
            view.grad = None if p.grad is None else _as_matrix(p.grad, like=p)

    taken = [{**group, "params": [views.get(p, p) for p in group["params"]]} for group in groups]
    optimizer = torch.optim.Muon(taken, lr=0.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    optimizer.register_step_pre_hook(hand_over)
    return optimizer


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a view of a tensor as a matrix of its first dim by the others, in the order in which ``like`` has them.

    Muon's step does not depend on the order of the columns, but it has to be one for the parameter and its gradient.
    """
    if not like.is_contiguous():  # kernels with the channels last
        tensor = tensor.movedim(1, -1)
    return tensor.view(len(tensor), -1)
