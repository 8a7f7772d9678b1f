"""One layer of a network from elsewhere, run alone on its own input: what of W and B its error path sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wtdiag.trainers.conformance.tensors_of import all_tensors, other_values, replaced, unchanged

_MOVED, _EQUAL = 1e-4, 1e-2  # relative differences: of rounding in single precision, and of two error signals
_DIRECTIONS = 6


@dataclass
class Replay:
    """A module with the arguments of one of its calls.

    Attributes
    ----------
    module : Module
        The layer.
    arguments : tuple
        The positional arguments of a call; the first is the input that errors are sent to.
    named : mapping
        The keyword arguments of that call.
    tensors : mapping
        All tensors that the network can reach.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def output(self, x: Tensor | None = None) -> Tensor:
        """Return the layer's output, without gradients."""
        with torch.no_grad(), self._repeatable():
            return _first(self.module(self.x if x is None else x, *self.arguments[1:], **self.named)).detach()

    def error(self, dy: Tensor, between: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the error that the layer sends down for the error ``dy`` at its output.

        ``between`` is a tensor with the value that it is given between the forward and the backward pass.
        """
        with torch.enable_grad(), self._repeatable():
            x = self.x.clone().requires_grad_()
            y = _first(self.module(x, *self.arguments[1:], **self.named))
            if between is not None:
                between[0].data.copy_(between[1])
            (dx,) = torch.autograd.grad(y, x, dy, allow_unused=True)
            return torch.zeros_like(x) if dx is None else dx.detach()

    @contextmanager
    def _repeatable(self) -> Iterator[None]:
        """Let each run draw the same random numbers, and leave the tensors of the layer as they are."""
        with torch.random.fork_rng(devices=[]), unchanged(all_tensors(self.module)):
            torch.manual_seed(0)
            yield

    @property
    def x(self) -> Tensor:
        """The input of the call."""
        return self.arguments[0].detach()  # type: ignore[no-any-return]

    def is_linear(self) -> bool:
        """Return whether the layer is an affine function of its input."""
        v = other_values(self.x)
        low, middle, high = (self.output(self.x + k * v) for k in (-1, 0, 1))
        return not moved(low + high, 2 * middle)

    def is_exact(self) -> bool:
        """Return whether the error sent down is that of backprop: ⟨dx, v⟩ = ⟨dy, J v⟩ along random directions v."""
        dy = torch.randn_like(self.output())
        dx, linear = self.error(dy), self.is_linear()
        step = 1.0 if linear else 1e-2 if self.x.dtype == torch.float32 else 1e-5
        sent, true = [], []
        for _ in range(_DIRECTIONS):
            v = other_values(self.x)
            change = (self.output(self.x + step * v) - self.output(self.x - step * v)) / (2 * step)
            sent.append((dx * v).sum())
            true.append((dy * change).sum())
        return not moved(torch.stack(sent), torch.stack(true), _EQUAL)

    def is_direct(self) -> bool:
        """Return whether the error sent down does not depend on the error at the layer's output."""
        y = self.output()
        return not moved(self.error(torch.randn_like(y)), self.error(torch.randn_like(y)))

    def follows(self, tensor: Tensor, value: Tensor, *, between: bool = False) -> bool:
        """Return whether the error sent down is another one if a tensor has another value.

        It has it from before the forward pass on, or from ``between`` the passes on.
        """
        dy = torch.randn_like(self.output())
        first = self.error(dy)
        if between:
            return moved(self.error(dy, (tensor, value)), first)
        with replaced(tensor, value):
            return moved(self.error(dy), first)

    def is_used(self, tensor: Tensor) -> bool:
        """Return whether the output depends on a tensor."""
        first = self.output()
        with replaced(tensor, other_values(tensor)):
            return moved(self.output(), first)


def moved(now: Tensor, before: Tensor, tolerance: float = _MOVED) -> bool:
    """Return whether two tensors differ by more than a share of their norm."""
    if now.shape != before.shape:
        return True
    return bool((now - before).norm() > tolerance * (before.norm() + 1e-30))


def _first(output: Any) -> Tensor:
    while isinstance(output, list | tuple):
        output = output[0]
    return output  # type: ignore[no-any-return]
