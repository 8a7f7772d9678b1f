"""Feedback that is a product of two factors, B = P R: its arithmetic, and the autograd function of its layers.

P acts on the axis of outputs, group by group: it is (outputs, middle / groups). R has W's shape with ``middle`` units
in place of the outputs. So B can be formed, or the error be sent through both factors, whichever costs less.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.synapse import always_given, saved
from wtdiag.trainers.rules.local import Local

if TYPE_CHECKING:
    from wtdiag.trainers.layers.operations import Operation
    from wtdiag.trainers.rules.factored import Factored


def product(op: Operation, left: Tensor, right: Tensor) -> Tensor:
    """Return B = P R, in W's shape.

    Examples
    --------
    >>> from wtdiag.trainers.layers.operations import Dense
    >>> product(Dense(), torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    return _mixed(op, _by_group(op, left), right)


def narrowed(op: Operation, left: Tensor, matrix: Tensor) -> Tensor:
    """Return Pᵀ M for a matrix of W's shape, in R's shape."""
    return _mixed(op, _by_group(op, left).mT, matrix)


def widened(op: Operation, left: Tensor, matrix: Tensor) -> Tensor:
    """Return P Pᵀ M for a matrix of W's shape: how B moves if R takes the update M of W."""
    return product(op, left, narrowed(op, left, matrix))


def factors_like(op: Operation, weight: Tensor, rule: Factored) -> tuple[Tensor, Tensor]:
    """Return P and R, not filled, of the sizes that a rule gives them beside W."""
    groups, axis = _groups(op), int(op.transposed)
    outputs = weight.shape[1] if op.transposed else weight.shape[0] // groups  # of one group
    middle = rule.middle(outputs)
    shape = list(weight.shape)
    shape[axis] = middle if op.transposed else middle * groups
    return weight.new_empty(outputs * groups, middle), weight.new_empty(shape)


class _Ways(NamedTuple):
    """Whether dy goes through P and R apart, not through B, and whether R's gradient comes from δ, not from W's."""

    apart: bool
    from_delta: bool


@always_given
class FactoredSynapse(torch.autograd.Function):
    """Like `Synapse`, but dx = Rᵀ δ with δ = Pᵀ dy; the factors learn as the rule says.

    The rule sees R as the feedback, and as W's gradient that of the narrowed error, δ xᵀ = Pᵀ (dy xᵀ). That and dx are
    computed through whichever matrices cost less.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        left: Tensor,
        right: Tensor,
        bias: Tensor | None,
        op: Operation,
        rule: Factored,
        batch_axis: int | None,
    ) -> Tensor:
        return op.apply(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, left, right, _, ctx.op, ctx.rule, ctx.batch_axis = inputs
        ctx.save_for_backward(x, weight, left, right)  # all rules of this kind let W decay, and read it for that

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, left, right = saved(ctx)
        op, rule = ctx.op, ctx.rule
        need_x, need_w, need_left, need_right, need_bias = ctx.needs_input_grad[:5]
        x, p, r = x.to(dy.dtype), left.detach().to(dy.dtype), right.detach().to(dy.dtype)
        need_left &= rule.learns_left  # function transforms ask for every gradient
        apart, from_delta = _cheapest(op, dy, weight, left, of_x=need_x, of_left=rule.learns_left)
        from_delta &= need_right and need_w  # where W stands still, its gradient is another
        errors = op.errors(dy, weight) if need_left or apart or from_delta else None
        delta = None if errors is None else _delta(op, errors, p)
        like_w = dy.new_empty(1).expand(weight.shape)
        b = product(op, p, r) if need_x and not apart else like_w
        dx, dw, dbias = op.backward(dy, x, b, (need_x and not apart, need_w, need_bias))
        if apart:
            assert delta is not None
            dx = op.adjoint(delta, r, x)
        dleft = dright = None
        w = weight.detach()
        s = Local(op, x, right.detach(), op.positions(x, dy), weight=w, weight_grad=dw, batch_axis=ctx.batch_axis)
        with torch.no_grad():
            if need_right:
                if from_delta:
                    assert delta is not None
                    _, s.weight_grad, _ = op.backward(delta, x, r, (False, True, False))
                else:
                    task = rule.weight_grad_at_rest(s) if dw is None else dw.detach()
                    s.weight_grad = narrowed(op, left.detach().to(task.dtype), task)
                dright = rule.feedback_grad(s)
            if need_left:
                if errors is None or delta is None:
                    raise InputError(
                        f"{rule.name}: the left factor cannot learn in a layer with {type(op).__name__}, because it is "
                        "not known which errors belong to which outputs of its weight"
                    )
                dleft = _left_grad(op, rule, left.detach(), errors, delta)
        if need_w:
            s.weight_grad = dw
            dw = rule.weight_grad(s)
        return dx, dw, dleft, dright, dbias, None, None, None


def _cheapest(op: Operation, dy: Tensor, weight: Tensor, left: Tensor, *, of_x: bool, of_left: bool) -> _Ways:
    """Return whether dy takes fewest products through P and R apart, not B, and R's gradient from δ, not from W's.

    ``of_x`` and ``of_left`` say whether x and P have gradients. With n uses of W, g groups, and outputs and middle
    units of ``fan`` weights each, B takes out · middle · fan products and dy through it n · out · fan, Pᵀ of W's
    gradient out · middle · fan, δ n · middle · out, and it through R, or its product with x, n · middle · fan · g.
    """
    if not op.structured:
        return _Ways(False, False)  # only then is it known which axis of dy counts the outputs
    outputs, middle = left.shape
    fan, uses = weight.numel() // outputs, dy.numel() // max(1, outputs)
    narrow, through = outputs * middle * fan, uses * middle * fan * _groups(op)

    def products(ways: _Ways) -> int:
        delta = uses * middle * outputs * (of_left or ways.apart or ways.from_delta)
        sent = through if ways.apart else narrow + uses * outputs * fan
        return delta + sent + (through if ways.from_delta else narrow)

    # Which way dy takes does not depend on whether B learns, so that its rounding does not either.
    ways = [_Ways(apart, from_delta) for apart in ((False, True) if of_x else (False,)) for from_delta in (False, True)]
    return min(ways, key=products)


def _delta(op: Operation, dy: Tensor, left: Tensor) -> Tensor:
    """Return δ = Pᵀ dy."""
    if not op.channels_first:
        return dy @ left
    split = _split(op, dy)  # (batch, groups, outputs, positions)
    delta = _by_group(op, left).mT @ split
    return delta.reshape(len(dy), _groups(op) * left.shape[1], *dy.shape[2:])


def _left_grad(op: Operation, rule: Factored, left: Tensor, dy: Tensor, delta: Tensor) -> Tensor:
    """Return P's gradient in its shape and precision; a pass of several uses takes its part from each."""
    errors = []
    for error in (dy, delta):
        if op.channels_first:
            errors.append(_split(op, error).transpose(0, 1).transpose(2, 3).flatten(1, 2))
        else:
            errors.append(error.reshape(1, -1, error.shape[-1]))
    p = _by_group(op, left)
    grad = rule.left_grad(p, *(error.detach().to(p.dtype) for error in errors))
    return (grad / op.uses).reshape(left.shape)


def _split(op: Operation, error: Tensor) -> Tensor:
    batch, units, *space = error.shape
    return error.reshape(batch, _groups(op), units // _groups(op), math.prod(space))


def _by_group(op: Operation, left: Tensor) -> Tensor:
    return left.view(_groups(op), -1, left.shape[1])


def _mixed(op: Operation, matrices: Tensor, weight: Tensor) -> Tensor:
    """Return matrices, (groups, new, old), times a tensor of W's form along its axis of outputs."""
    groups, new, old = matrices.shape
    if not op.transposed:
        return (matrices @ weight.reshape(groups, old, -1)).reshape(groups * new, *weight.shape[1:])
    inputs, kernel = len(weight) // groups, weight.shape[2:]
    mixed = torch.einsum("gno,giok->gink", matrices, weight.reshape(groups, inputs, old, -1))
    return mixed.reshape(len(weight), new, *kernel)


def _groups(op: Operation) -> int:
    return getattr(op, "groups", 1)
