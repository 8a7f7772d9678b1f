"""The autograd functions of converted layers: their forward pass uses W, their backward pass what the rule gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from wtdiag.trainers.rules.local import Local

if TYPE_CHECKING:
    from wtdiag.trainers.layers.operations import Operation
    from wtdiag.trainers.rules.base import Rule
    from wtdiag.trainers.rules.direct import Direct

F = TypeVar("F", bound=torch.autograd.Function)


class _AllGiven(inspect.Signature):
    """The signature of a function that is always given all its arguments by position: it has none to look up."""

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(args=args, kwargs=kwargs, apply_defaults=_nothing)


def _nothing() -> None:
    pass


def always_given(function: type[F]) -> type[F]:
    """Declare that ``function.apply`` is always given all arguments by position.

    `apply` matches them with the signature of ``forward`` in every call, which costs more than a small layer's forward
    pass.
    """
    forward: Any = function.forward
    forward.__signature__ = _AllGiven(list(inspect.signature(forward).parameters.values()))
    return function


@always_given
class Synapse(torch.autograd.Function):
    """y = W x + b; dx = Bᵀ dy; db as in backprop; dW and dB as the rule says. If B is None, W is used for it.

    It works with autocast, checkpointing, `torch.func.grad` and `torch.compile(fullgraph=True)`, because it defines
    `setup_context` and casts to the error's dtype.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        feedback: Tensor | None,
        bias: Tensor | None,
        op: Operation,
        rule: Rule,
        batch_axis: int | None,
    ) -> Tensor:
        return op.apply(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, feedback, bias, ctx.op, ctx.rule, ctx.batch_axis = inputs
        shares = ctx.rule.shares
        # Only what the rule reads is kept: without weight transport, W is not held between forward and backward.
        ctx.save_for_backward(
            x,
            weight if feedback is None else feedback,
            weight if "weight" in shares else None,
            output if "output" in shares else None,
            bias if shares & {"output", "bias"} else None,
        )

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback, weight, output, bias = saved(ctx)
        op, rule = ctx.op, ctx.rule
        need_x, need_w, need_feedback, need_bias = ctx.needs_input_grad[:4]
        x = x.to(dy.dtype)
        if rule.learned:
            # B learns only from its local gradient: a backward pass through this backward pass must not reach it.
            feedback = feedback.detach()
        dx, dw, dbias = op.backward(dy, x, feedback.to(dy.dtype), (need_x, need_w, need_bias))
        dfeedback = None
        if rule.learned and (need_w or need_feedback):
            y = None if output is None else op.without_bias(output.to(dy.dtype), bias)
            w = None if weight is None else weight.detach()
            b = bias.detach().to(dy.dtype) if bias is not None and "bias" in rule.shares else None
            s = Local(op, x, feedback, op.positions(x, dy), y, w, dw, ctx.batch_axis, b)  # type: ignore[arg-type]
            if need_feedback:
                with torch.no_grad():
                    if dw is None and "weight_grad" in rule.shares:  # W is frozen
                        s.weight_grad = rule.weight_grad_at_rest(s)
                    dfeedback = rule.feedback_grad(s)
            dw = rule.weight_grad(s) if need_w else None
        return dx, dw, dfeedback, dbias, None, None, None


class SharedWeight(torch.autograd.Function):
    """The identity on W for uses outside its layer; its backward pass gives B the same gradient as W.

    ``shared`` says what of that gradient reaches the feedback weights, if they are a factor of B.
    """

    @staticmethod
    def forward(weight: Tensor, feedback: Tensor, shared: Callable[[Tensor], Tensor]) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *_, ctx.shared = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, ctx.shared(gradient.detach()), None


@always_given
class DirectSynapse(torch.autograd.Function):
    """Like `Synapse`, but dx = Bᵀ e with a signal e from the network's output.

    The second output, silent and in the shape of the network's output, is tied to that output by
    `trainers.layers.error_path`. So autograd itself brings e here, as its gradient, and no state outside the graph is
    needed.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        feedback: Tensor,
        bias: Tensor | None,
        op: Operation,
        rule: Direct,
        batch_axis: int,
    ) -> tuple[Tensor, Tensor]:
        return op.apply(x, weight, bias), x.new_zeros(x.shape[batch_axis], feedback.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, feedback, _, ctx.op, ctx.rule, ctx.batch_axis = inputs
        ctx.save_for_backward(x, feedback)
        ctx.weight_shape = weight.shape
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, signal: Tensor | None) -> tuple[Tensor | None, ...]:
        x, feedback = ctx.saved_tensors
        need_x, need_w, need_feedback, need_bias = ctx.needs_input_grad[:4]
        if dy is None:
            return (None,) * 7
        if signal is None:
            raise RuntimeError(
                f"{ctx.rule.name}: the output error never reached a layer; call the converted model itself, not its "
                "parts, take the loss of its output, and checkpoint with use_reentrant=False"
            )
        # The weight gradient needs only the shape of W, so W is not held between forward and backward.
        like_w = dy.new_empty(1).expand(ctx.weight_shape)
        _, dw, dbias = ctx.op.backward(dy, x.to(dy.dtype), like_w, (False, need_w, need_bias))
        feedback = feedback.detach()
        dx = project(signal, feedback, x, ctx.batch_axis).to(dy.dtype) if need_x else None
        dfeedback = None
        if need_feedback and ctx.rule.learned:
            with torch.no_grad():
                inputs = projected_inputs(x, feedback, ctx.batch_axis)
                dfeedback = ctx.rule.projection_grad(signal, inputs, feedback)
        return dx, dw, dfeedback, dbias, None, None, None


def project(signal: Tensor, feedback: Tensor, x: Tensor, batch_axis: int) -> Tensor:
    """Return Bᵀ e in the shape of ``x``, with the same error at every position that B does not distinguish."""
    error = signal @ feedback.flatten(1).to(signal.dtype)
    shape = feedback.shape[1:]
    outer = [1] * (x.dim() - len(shape))
    outer[batch_axis] = len(error)
    return error.view(*outer, *shape).expand(x.shape)


def projected_inputs(x: Tensor, feedback: Tensor, batch_axis: int) -> Tensor:
    """Return x, examples first, summed over the positions that B does not distinguish: the adjoint of `project`."""
    x = x.movedim(batch_axis, 0)
    positions = tuple(range(1, x.dim() - feedback.dim() + 1))
    return x.sum(positions) if positions else x


def saved(ctx: Any) -> tuple[Any, ...]:
    """Return the tensors that a synapse saved for its backward pass."""
    try:
        return tuple(ctx.saved_tensors)
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise RuntimeError(
            f"{ctx.rule.name}: a tensor that the feedback weights learn from was changed in place after the layer "
            f"(an activation with inplace=True called as a function?): {error}"
        ) from error
