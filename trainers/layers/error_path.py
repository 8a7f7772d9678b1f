"""The path of the output error to the layers of direct rules, through silent outputs tied to the network's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from wtdiag.probes.errors import InputError

if TYPE_CHECKING:
    from wtdiag.trainers.rules.direct import Direct


class _Tap(torch.autograd.Function):
    """The identity on the network's output; its backward pass sends the signal to project to every silent output."""

    @staticmethod
    def forward(output: Tensor, rule: Direct, *silent: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tapped, ctx.rule, *silent = inputs
        ctx.save_for_backward(tapped)
        ctx.uses = len(silent)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        return error, None, *[ctx.rule.signal(error, output)] * ctx.uses


class ErrorPath:
    """The silent outputs of direct layers in a forward pass, which it collects and ties to the network's output.

    Examples
    --------
    >>> from wtdiag.trainers.rules import rule
    >>> path = ErrorPath(rule("dfa"), classes=10)
    >>> path.classes
    10
    """

    def __init__(self, rule: Direct, classes: int) -> None:
        self.rule, self.classes = rule, classes
        self.silent: list[Tensor] = []

    def attach(self, model: nn.Module) -> None:
        """Register hooks on the network whose output error is to be projected."""
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._finish)

    def _start(self, model: nn.Module, inputs: Any) -> None:
        self.silent = []

    def _finish(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        silent, self.silent = self.silent, []
        if not silent:
            return output
        shapes = {tuple(tensor.shape) for tensor in silent}
        leaves, structure = _pytree.tree_flatten(output)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and {tuple(leaf.shape)} == shapes:
                leaves[i] = _Tap.apply(leaf, self.rule, *silent)
                return _pytree.tree_unflatten(leaves, structure)
        outputs = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
        raise InputError(
            f"direct feedback: every layer must see the whole batch and the network must return an output of shape "
            f"(batch, classes) whose error is projected; layers saw {sorted(shapes)}, outputs are {outputs}. "
            "If only the classes differ, give transport_free(..., classes=…)"
        )
