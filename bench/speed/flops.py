"""FLOPs of the matrix products of a training step, counted as they are executed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def step_flops(model: nn.Module, x: Tensor, *, to_input: bool = False) -> int:
    """Return the FLOPs of forward and backward pass; ``to_input`` sends the error down to the input too.

    Without it the lowest layer sends no error down, as in training.
    """
    model.train()
    x = x.clone().requires_grad_(to_input)
    y = torch.arange(len(x), device=x.device) % 10
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _added}) as counter:
        F.cross_entropy(model(x), y).backward()
    return int(counter.get_total_flops())


def _added(sum_: object, a: torch.Size, b: torch.Size, *rest: object, **kwargs: object) -> int:
    """Return the FLOPs of a product that is added in place, which torch does not count: 2 · rows · inner · columns."""
    return 2 * a[0] * a[1] * b[1]
