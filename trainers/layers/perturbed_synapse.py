"""Layers that draw noise in the forward pass: their autograd function, and the second pass of node perturbation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.error_path import ErrorPath
from wtdiag.trainers.layers.synapse import always_given, saved
from wtdiag.trainers.rules.local import Local

if TYPE_CHECKING:
    from wtdiag.trainers.layers.operations import Operation
    from wtdiag.trainers.rules.base import Rule
    from wtdiag.trainers.rules.perturbed import Perturbed

_States = dict[torch.device | None, Tensor]


@always_given
class PerturbedSynapse(torch.autograd.Function):
    """Like `Synapse`, with the noise at the layer's input for the rule, which x holds already if it rides on it.

    Under node perturbation, autograd brings the change of each example's loss as the gradient of the second output,
    silent, which `SecondPass` ties to the network's output.
    """

    @staticmethod
    def forward(
        x: Tensor,
        noise: Tensor,
        weight: Tensor,
        feedback: Tensor,
        bias: Tensor | None,
        op: Operation,
        rule: Perturbed,
        batch_axis: int | None,
    ) -> tuple[Tensor, Tensor]:
        return op.apply(x, weight, bias), x.new_zeros(x.shape[batch_axis or 0] if x.dim() > 1 else ())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, noise, weight, feedback, bias, ctx.op, ctx.rule, ctx.batch_axis = inputs
        shared = "output" in ctx.rule.shares
        ctx.save_for_backward(x, noise, feedback, output[0] if shared else None, bias if shared else None)
        ctx.weight_shape = weight.shape
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, change: Tensor | None) -> tuple[Tensor | None, ...]:
        x, noise, feedback, output, bias = saved(ctx)
        op, rule = ctx.op, ctx.rule
        need_x, _, need_w, need_feedback, need_bias = ctx.needs_input_grad[:5]
        if dy is None:
            return (None,) * 8
        if change is None and rule.passes_twice:
            raise RuntimeError(
                f"{rule.name}: the change of the loss never reached a layer; call the converted model itself, not its "
                "parts, take the loss of its output, and checkpoint with use_reentrant=False"
            )
        x, feedback = x.to(dy.dtype), feedback.detach()
        dx, dw, dbias = op.backward(dy, x, feedback.to(dy.dtype), (need_x, need_w, need_bias))
        dfeedback = None
        if need_feedback:
            with torch.no_grad():
                y = None if output is None else op.without_bias(output.to(dy.dtype), bias)
                s = Local(op, x, feedback, op.positions(x, dy), y, batch_axis=ctx.batch_axis)  # type: ignore[arg-type]
                s.noise, s.error = noise.to(dy.dtype), dy
                s.change = change if change is None else change.to(dy.dtype)  # type: ignore[assignment]
                dfeedback = rule.feedback_grad(s)
        return dx, None, dw, dfeedback, dbias, None, None, None


class _ChangeTap(torch.autograd.Function):
    """The identity on an output; its backward pass sends the change of each example's loss to every silent output."""

    @staticmethod
    def forward(output: Tensor, perturbed: Tensor, *silent: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tapped, perturbed, *silent = inputs
        ctx.save_for_backward(perturbed - tapped.detach())
        ctx.shapes = [each.shape for each in silent]

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        (moved,) = ctx.saved_tensors
        n = ctx.shapes[0].numel()
        change = (error.detach() * moved).reshape(n, moved.numel() // max(1, n)).sum(1)
        return error, None, *[change.view(shape) for shape in ctx.shapes]


class SecondPass(ErrorPath):
    """The second forward pass of a network under node perturbation, which follows each pass with gradients.

    It draws the same random numbers as the first pass, so that its noise is that which the layers keep, and dropout the
    same. It leaves the statistics of batch norm alone.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule  # type: ignore[assignment]
        self.silent: list[Tensor] = []
        self.runs = False
        """Whether the pass that goes on is the second one."""
        self._before: _States | None = None  # the first pass that goes on, or None

    def attach(self, model: nn.Module) -> None:
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._pass_again, with_kwargs=True)

    def _start(self, model: nn.Module, inputs: Any) -> None:
        if self.runs:
            return
        self.silent, self._before = [], None
        if torch.is_grad_enabled():
            if torch.compiler.is_compiling():
                raise RuntimeError(f"{self.rule.name}: torch.compile cannot take the second forward pass; leave it out")
            self._before = _random_states(model)

    def note(self, silent: Tensor) -> None:
        """Take up the silent output of a layer, if that runs in the first pass: not in one that computes it again."""
        if self._before is not None and not self.runs:
            self.silent.append(silent)

    def _pass_again(self, model: nn.Module, inputs: Any, options: Any, output: Any = None) -> Any:
        if self.runs or self._before is None:
            return output
        (silent, self.silent), (before, self._before) = (self.silent, []), (self._before, None)
        if not silent:
            return output
        after = _random_states(model)
        self.runs = True
        try:
            _set_random_states(before)
            with torch.no_grad(), own_buffers(model), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # said by checkpoints
                perturbed = model(*inputs, **options)
        finally:
            self.runs = False
            _set_random_states(after)
        return self._tapped(output, perturbed, silent)

    def _tapped(self, output: Any, perturbed: Any, silent: list[Tensor]) -> Any:
        """Return the output with the silent outputs tied to each tensor in it that has the examples first."""
        leaves, structure = _pytree.tree_flatten(output)
        moved, _ = _pytree.tree_flatten(perturbed)
        counts = {each.numel() for each in silent}
        tied = [
            i
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and counts in ({1}, {*leaf.shape[:1]})
        ]
        if not tied:
            outputs = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
            raise InputError(
                f"{self.rule.name}: every layer must see the whole batch, and the network must return outputs with the "
                f"examples first; layers saw batches of {sorted(counts)}, outputs are {outputs}"
            )
        for i in tied:
            leaves[i] = _ChangeTap.apply(leaves[i], moved[i], *silent)
        return _pytree.tree_unflatten(leaves, structure)


@contextmanager
def own_buffers(model: nn.Module) -> Iterator[None]:
    """Let the model write to copies of its buffers in the block, and restore its own afterwards."""
    before = {module: dict(module._buffers) for module in model.modules()}
    copies: dict[Tensor | None, Tensor | None] = {None: None}
    try:
        for module, buffers in before.items():
            for name, buffer in buffers.items():
                if buffer not in copies and buffer is not None:
                    copies[buffer] = buffer.clone()
                module._buffers[name] = copies[buffer]
        yield
    finally:
        for module, buffers in before.items():
            module._buffers.clear()
            module._buffers.update(buffers)


def _random_states(model: nn.Module) -> _States:
    """Return the state of the random numbers of the CPU and of each GPU that holds a part of the model."""
    devices = {p.device for p in model.parameters() if p.is_cuda}
    return {None: torch.get_rng_state(), **{device: torch.cuda.get_rng_state(device) for device in devices}}


def _set_random_states(states: _States) -> None:
    for device, state in states.items():
        torch.set_rng_state(state) if device is None else torch.cuda.set_rng_state(state, device)
