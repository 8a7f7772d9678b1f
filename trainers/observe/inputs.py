"""What a network is given: one tensor, or as Hugging Face's networks take them, tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Inputs = Tensor | Mapping[str, Tensor]


def output_of(model: nn.Module, x: Inputs) -> Any:
    """Return what a network makes of its inputs.

    Examples
    --------
    >>> import torch
    >>> net = nn.Linear(3, 2)
    >>> x = torch.randn(4, 3)
    >>> torch.equal(output_of(net, {"input": x}), output_of(net, x))
    True
    """
    return model(**x) if isinstance(x, Mapping) else model(x)


def output_with(model: nn.Module, state: dict[str, Tensor], x: Inputs) -> Any:
    """Return what a network with other parameters and buffers makes of its inputs."""
    args, named = ((), dict(x)) if isinstance(x, Mapping) else ((x,), {})
    return functional_call(model, state, args, named)


def moved(x: Inputs, device: Any) -> Inputs:
    """Return inputs on a device."""
    return {name: each.to(device) for name, each in x.items()} if isinstance(x, Mapping) else x.to(device)


def cross_entropy(output: Any, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of classes, also of an output that holds its ``logits`` beside others."""
    logits = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
