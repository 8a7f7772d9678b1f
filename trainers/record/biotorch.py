"""What is known of the layers of BioTorch: by which rule they learn, and what really carries the error there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

FEEDBACK = "weight_backward"
"""Name of the attribute in which these layers keep B."""
DFA = "dfa"
_SIGNED = frozenset({"usf", "brsf", "frsf"})  # rules whose feedback has the signs of W


def rule_of(module: nn.Module | None) -> str:
    """Return the rule of a layer of BioTorch; empty for any other module."""
    path = type(module).__module__
    if path.startswith("biotorch.layers.dfa."):  # the only layers that do not name their rule themselves
        return DFA
    return str(getattr(module, "type", "")) if path.startswith("biotorch.") else ""


def effective(module: nn.Module, weight: Tensor, feedback: Tensor) -> Tensor:
    """Return the matrix that carries the error, from what a layer keeps; that of any other module is unchanged."""
    if rule_of(module) in _SIGNED:
        # What the layer keeps are magnitudes, or has the signs of the W before; those of W now carry the error.
        return feedback.detach().abs() * weight.detach().sign()
    return feedback


def spreads(module: nn.Module | None, feedback: Tensor) -> bool:
    """Return whether a layer keeps a kernel from which B follows by `spread`.

    So do convolutions under direct feedback, but for those with groups or ``padding="same"``, through which BioTorch
    itself cannot send an error.
    """
    plain = isinstance(getattr(module, "padding", None), tuple) and getattr(module, "groups", 1) == 1
    return rule_of(module) == DFA and feedback.dim() == 4 and plain


def spread(kernel: Tensor, module: nn.Module, inputs: torch.Size, outputs: torch.Size) -> Tensor:
    """Return B of shape (class, channels, height, width) of a convolution, for the sizes of its input and output.

    BioTorch repeats the output's error at every position of the layer's output, and sends it back through the kernel.
    """
    classes = len(kernel)
    identity = torch.eye(classes, dtype=kernel.dtype, device=kernel.device)
    repeated = identity[:, :, None, None].expand(-1, -1, *outputs[-2:])
    options: tuple[Any, ...] = module.stride, module.padding, module.dilation
    return conv2d_input((classes, *inputs[-3:]), kernel, repeated, *options)  # type: ignore[no-any-return,no-untyped-call]
