"""The signals that pass through a network on one batch, under the rule and under exact backprop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.layers.batch_axis import batch_axis_of, count_examples
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.direct_points import Point, points_of
from wtdiag.trainers.layers.perturbed_synapse import own_buffers
from wtdiag.trainers.layers.synapse import project
from wtdiag.trainers.observe.blocks import Passed, blocks, passing
from wtdiag.trainers.observe.fresh import FreshAngles
from wtdiag.trainers.observe.inputs import Inputs, output_of
from wtdiag.trainers.observe.laws import Law, LayerOperator, Use
from wtdiag.trainers.rules.factored import Factored
from wtdiag.trainers.rules.local import Local

if TYPE_CHECKING:
    from wtdiag.trainers.layers.operations import Operation
    from wtdiag.trainers.layers.synaptic import Synaptic

Signals = dict[str, dict[str, Any]]
Loss = Callable[[Tensor, Tensor], Tensor]


def error_signals(model: nn.Module, x: Inputs, target: Tensor, *, loss: Loss = F.cross_entropy) -> Signals:
    """Return each layer's signals on one batch, under the rule and under exact backprop.

    This takes two forward passes in training mode, the second in two halves, with two backward passes of errors only
    for each, and the products of each layer's inputs with its weights and errors. The model is not changed: not its
    weights, gradients and batch-norm statistics, and not the random state.

    Returns
    -------
    dict
        For each layer, in forward order, a dict of arrays whose first axis counts the examples:

        - ``inputs`` x, ``forward_projection`` W x and, if B has W's shape, ``feedback_projection`` B x;
        - ``delta`` and ``delta_exact``, the error that arrives at the layer's output under the rule and under backprop;
        - ``weight_gradient`` = Σ delta xᵀ and ``weight_gradient_exact`` = Σ delta_exact xᵀ in W's shape: the task's
          gradient of W, summed over all layers that share it;
        - ``half_gradient``, ``other_half_gradient`` and the same with ``_exact``: the task's gradients of W from two
          halves of the batch, each of which passes the network by itself;
        - ``entering`` and ``leaving``, what passes the block that ends in the layer (`trainers.observe.blocks`), or for
          a layer in no block its own input and that of the next;
        - ``forward_gradient``, the gradient that W descends: ``weight_gradient`` and the rule's own term;
        - if the layer sends the error down, ``sent`` = B(delta), ``sent_local`` = W(delta) and ``sent_exact`` =
          W(delta_exact), with the adjoints of W and B;

        and in addition ``operator``, a `trainers.observe.laws.LayerOperator` of the size of the layer's first use,
        ``fresh_angles``, a function that sends the error down through fresh random feedback when it is called, while
        the model has these weights (`trainers.observe.fresh`), and, if the rule lets B learn in its layer, ``law``, a
        `trainers.observe.laws.Law`.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), "fa")
    >>> signals = error_signals(net, torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> {layer: sorted(kind for kind in arrays if kind.startswith("sent_")) for layer, arrays in signals.items()}
    {'0': [], '2': ['sent_exact', 'sent_local']}
    """
    inside = blocks(model)
    with tracing(model) as tracer, passing(list(dict.fromkeys(inside.values()))) as passed, torch.enable_grad():
        output = output_of(model, x)
        tracer.find_examples(count := count_examples(output))
        value = loss(output, target)
        exact, _ = tracer.backward(value, exact=tracer.calls)
        ruled, _ = tracer.backward(value, exact=())
    names = {layer: name for name, layer in synapses(model)}
    calls = tracer.calls
    fresh = FreshAngles(model, x, target, loss)
    with torch.no_grad():
        signals = {names[layer]: _signals(layer, calls[layer], ruled[layer], exact[layer]) for layer in calls}
        for layer in calls:
            together = sharing(layer, calls)
            found = signals[names[layer]]
            found["fresh_angles"] = partial(fresh, names[layer])
            if (gradient := weight_gradient_of(together, calls, exact)) is not None:
                found["weight_gradient_exact"] = _to_numpy(gradient)
            if gradients := [part for each in together for part in _gradients(each, calls[each], ruled[each])]:
                found["weight_gradient"] = _total(gradient for _, _, gradient in gradients)
                found["forward_gradient"] = _total(_descended(*part) for part in gradients)
            found |= _hidden(layer, list(calls), calls, inside, passed)
            if layer.rule.learned and layer.rule.affine:
                uses = tuple(_use(each, call) for each in together for call in calls[each])
                found["law"] = Law(uses, examples=len(uses[0].x))
    for half, examples in zip(("half", "other_half"), _halves(x, target, count), strict=False):
        for layer, by_kind in _weight_gradients(model, *examples, loss).items():
            signals[names[layer]] |= {f"{half}_{kind}": array for kind, array in by_kind.items()}
    return signals


def sharing(layer: Synaptic, calls: dict[Synaptic, list[Call]]) -> list[Synaptic]:
    """Return the layers that share W with a layer, itself included."""
    # If W is computed from other tensors, each use has a W of its own.
    shared = None if layer.is_computed("weight") else layer.weight
    return [other for other in calls if other is layer or calls[other][0].weight is shared]


def _halves(x: Inputs, target: Tensor, count: int | None) -> list[tuple[Inputs, Tensor]]:
    """Return two halves of the batch, of every other example; none if its examples cannot be told or are too few."""
    if count is None or count < 4 or not target.dim() or len(target) != count:
        return []
    index = torch.arange(count, device=target.device)
    if isinstance(x, Mapping):  # of which the first axis counts the examples
        return [({name: each[index[i::2]] for name, each in x.items()}, target[i::2]) for i in (0, 1)]
    axis = batch_axis_of(x.shape, count)
    if axis is None:
        return []
    return [(x.index_select(axis, index[start::2]), target[start::2]) for start in (0, 1)]


def _weight_gradients(
    model: nn.Module, x: Inputs, target: Tensor, loss: Loss
) -> dict[Synaptic, dict[str, np.ndarray[Any, Any]]]:
    """Return the task's gradient of each W on a batch, under the rule and under exact backprop."""
    with tracing(model) as tracer, torch.enable_grad():
        value = loss(output_of(model, x), target)
        errors = {
            "gradient_exact": tracer.backward(value, exact=tracer.calls)[0],
            "gradient": tracer.backward(value, exact=())[0],
        }
    calls = tracer.calls
    with torch.no_grad():
        return {
            layer: {
                kind: _to_numpy(gradient)
                for kind, of in errors.items()
                if (gradient := weight_gradient_of(sharing(layer, calls), calls, of)) is not None
            }
            for layer in calls
        }


def weight_gradient_of(
    together: list[Synaptic], calls: dict[Synaptic, list[Call]], errors: dict[Synaptic, list[Error]]
) -> Tensor | None:
    """Return the task's gradient of the W that some layers share; None if no error reaches any of them."""
    gradients = [part for each in together for part in _gradients(each, calls[each], errors[each])]
    return sum((gradient for _, _, gradient in gradients[1:]), gradients[0][2]) if gradients else None


def _hidden(
    layer: Synaptic,
    order: list[Synaptic],
    calls: dict[Synaptic, list[Call]],
    inside: dict[Synaptic, nn.Module],
    passed: Passed,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return what enters and leaves the block that ends in a layer; of a layer in no block, its and the next input."""
    if (block := inside.get(layer)) is not None:
        last = layer is [each for each in order if inside.get(each) is block][-1]
        ends: tuple[Tensor, ...] = passed.get(block, ()) if last else ()
    else:
        following = order[order.index(layer) + 1 :][:1]
        first = [calls[each][0] for each in (layer, *following)] if following else []
        ends = tuple(call.examples_first(call.x) for call in first)
    return dict(zip(("entering", "leaving"), map(_to_numpy, ends), strict=False))


def _signals(layer: Synaptic, calls: list[Call], ruled: list[Error], exact: list[Error]) -> dict[str, Any]:
    first = calls[0].examples_first(calls[0].x)
    signals: dict[str, Any] = {"operator": LayerOperator(calls[0].op, tuple(first.shape[1:]), first.device)}
    b = layer.effective_feedback() if layer.error_path is None else None
    tensors: dict[str, Sequence[Tensor | None]] = {
        "inputs": [call.x for call in calls],
        "forward_projection": [call.op.apply(call.x, call.weight.to(call.x.dtype)) for call in calls],
        "feedback_projection": [None if b is None else call.op.apply(call.x, b.to(call.x.dtype)) for call in calls],
        "delta": [error.delta for error in ruled],
        "delta_exact": [error.delta for error in exact],
        "sent": [error.sent for error in ruled],
        "sent_local": [_through_w(call, error) for call, error in zip(calls, ruled, strict=True)],
        "sent_exact": [error.sent for error in exact],
    }
    for kind, uses in tensors.items():
        known = [call.examples_first(use) for call, use in zip(calls, uses, strict=True) if use is not None]
        if len(known) == len(uses):
            signals[kind] = _array(known, channels_first=layer.op.channels_first)
    return signals


def _through_w(call: Call, error: Error) -> Tensor | None:
    if error.delta is None or error.sent is None:
        return None
    return call.op.adjoint(error.delta, call.weight.to(error.delta.dtype), call.x)


def _gradients(layer: Synaptic, calls: list[Call], errors: list[Error]) -> list[tuple[Synaptic, Call, Tensor]]:
    """Return the uses of a layer that an error reaches, each with the task's gradient of W there."""
    return [
        (layer, call, call.op.outer(call.x.to(error.delta.dtype), error.delta, call.weight))
        for call, error in zip(calls, errors, strict=True)
        if error.delta is not None
    ]


def _descended(layer: Synaptic, call: Call, gradient: Tensor) -> Tensor:
    """Return the gradient that W descends at one use; without a term of the rule it is the task's gradient itself."""
    if not layer.rule.learned:
        return gradient
    y = call.op.apply(call.x, call.weight.to(call.x.dtype))
    s = Local(call.op, call.x, layer.effective_feedback(), call.op.positions(call.x, y), y, call.weight)
    # A copy, because a rule may change it in place.
    s.weight_grad, s.batch_axis, s.bias = gradient.clone(), call.batch_axis, _bias(layer, call.x)
    return layer.rule.weight_grad(s)


def _total(gradients: Iterable[Tensor]) -> np.ndarray[Any, Any]:
    first, *rest = gradients
    return _to_numpy(sum(rest, first))  # one is not copied


def _use(layer: Synaptic, call: Call) -> Use:
    # A copy of W, so that the law outlives the next training step.
    w = call.weight.detach().to(call.x.dtype, copy=True)
    x = call.examples_first(call.x)
    positions = call.op.positions(x, call.op.apply(x[:1], w))
    left = layer.feedback_left.detach().to(w, copy=True) if isinstance(layer.rule, Factored) else None
    known = call.batch_axis is not None
    return Use(layer.rule, call.op, x, w, positions, examples_known=known, left=left, bias=_bias(layer, call.x))


def _bias(layer: Synaptic, x: Tensor) -> Tensor | None:
    """Return a copy of a layer's bias in the precision of x, if there is one."""
    return None if layer.bias is None else layer.bias.detach().to(x.dtype, copy=True)


def _array(signals: list[Tensor], *, channels_first: bool) -> np.ndarray[Any, Any]:
    """Return the signals of all uses of a layer in one array, with units on axis 1 or -1; one use is not copied."""
    if len(signals) == 1:
        signal = signals[0]
    elif channels_first:
        signal = torch.cat([signal.flatten(2) for signal in signals], dim=2)
    else:
        signal = torch.cat([signal.reshape(-1, signal.shape[-1]) for signal in signals])
    return _to_numpy(signal)


def _to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).cpu().numpy()


@dataclass
class Error:
    """The error that one backward pass brought to a use of a layer, and the error that it sent on, or None."""

    delta: Tensor | None = None
    sent: Tensor | None = None


@dataclass
class Call:
    """One use of a layer in the forward pass; ``weight`` is its W, differentiable if it is computed."""

    op: Operation
    x: Tensor
    weight: Tensor
    batch_axis: int | None
    error: Error = field(default_factory=Error)
    sent: dict[bool, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """What the last error became, (error, sent), through W if True and through B if False."""

    def examples_first(self, signal: Tensor) -> Tensor:
        """Return a signal of this use with the axis of examples moved to the front, if it is known."""
        return signal.movedim(self.batch_axis or 0, 0)


class SynapseTracer:
    """A stand-in for the synapses that notes the errors in their backward pass.

    Attributes
    ----------
    calls : dict
        The uses of each layer in the forward pass, by layer in forward order.
    remembers : bool
        Whether a layer that receives the same error again sends the same on without computing it. It pays where many
        backward passes differ in a few layers only, and holds up to four errors of each layer in memory.
    fresh : dict
        Matrices that take the place of B where a layer sends its error down as its rule does, by layer.
    """

    def __init__(self, points: Collection[Point] = ()) -> None:
        self.remembers, self._points = False, points
        self.calls: dict[Synaptic, list[Call]] = {}
        self.exact: Collection[Synaptic] = ()
        self.fresh: Mapping[Synaptic, Tensor] = {}
        self._anchors: list[Tensor] = []
        self._going_back = False

    def apply(self, layer: Synaptic, x: Tensor, op: Operation) -> Tensor:
        """Run one layer forward, and note this use of it."""
        # The backward pass asks for the gradients of these anchors instead of parameters: so it reaches frozen layers
        # too, and leaves no gradient anywhere.
        anchor = x.new_zeros((), requires_grad=True)
        y, silent, call = _TracedSynapse.apply(anchor, x, layer, layer.weight, op, self)
        if not self._going_back:  # in the backward pass, activation checkpointing runs a layer forward again
            self._anchors.append(anchor)
            self.calls.setdefault(layer, []).append(call)
        if layer.error_path is not None:
            layer.error_path.silent.append(silent)
        return y  # type: ignore[no-any-return]

    def backward(
        self, value: Tensor, exact: Collection[Synaptic], parameters: Sequence[Tensor] = ()
    ) -> tuple[dict[Synaptic, list[Error]], tuple[Tensor | None, ...]]:
        """Send the error of the loss ``value`` down: through W in the layers ``exact``, as the rule does in the others.

        Returns
        -------
        errors : dict
            The errors of each of the layer's ``calls``, by layer.
        gradients : tuple
            The gradients of ``parameters``, as far as native modules use them.
        """
        self.exact = exact
        for call in self._all():
            call.error = Error()
        inputs = [*self._anchors, *parameters]
        self._going_back = True
        for point in self._points:
            point.exact = len(exact) == len(self.calls)
        try:
            gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        finally:
            for point in self._points:
                point.exact = False
        errors = {layer: [call.error for call in calls] for layer, calls in self.calls.items()}
        return errors, gradients[len(self._anchors) :]

    def find_examples(self, count: int | None) -> None:
        """Find the axis of examples, from their number, in the uses whose axis is not known."""
        for call in self._all():
            if call.batch_axis is None:
                call.batch_axis = batch_axis_of(call.x.shape, count)

    def _all(self) -> Iterator[Call]:
        for calls in self.calls.values():
            yield from calls


class _TracedSynapse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, layer: Synaptic, weight: Tensor, op: Operation, tracer: SynapseTracer
    ) -> tuple[Tensor, Tensor, Call]:
        y = op.apply(x, weight, layer.bias)
        seen = x.detach() if x.dim() > 1 else x.detach()[None]
        call = Call(op, seen, weight, layer.axis_of_examples(x))
        ctx.layer, ctx.tracer, ctx.call = layer, tracer, call
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        shape = (x.shape[call.batch_axis], layer.error_path.classes) if layer.error_path else ()  # type: ignore[index]
        return y, y.new_zeros(shape), call

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, signal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if dy is None:
            return (None,) * 6
        layer, call = ctx.layer, ctx.call
        call.error.delta = dy
        if not ctx.needs_input_grad[1]:
            return (None,) * 6
        if layer not in ctx.tracer.exact and layer.error_path is not None:
            if signal is None:
                raise RuntimeError(
                    f"{layer.rule.name}: the output error never reached a layer; is the loss that of another network?"
                )
            sent = project(signal, ctx.tracer.fresh.get(layer, layer.feedback), x, call.batch_axis)
        else:
            fresh = None if layer in ctx.tracer.exact else ctx.tracer.fresh.get(layer)
            exact = layer in ctx.tracer.exact or (layer.rule.transports and fresh is None)
            before = call.sent.get(exact) if ctx.tracer.remembers else None
            if before is not None and torch.equal(before[0], dy):
                sent = before[1]
            else:
                matrix = call.weight if exact else layer.effective_feedback() if fresh is None else fresh
                sent = call.op.adjoint(dy, matrix.to(dy.dtype), x.to(dy.dtype))
            if ctx.tracer.remembers:
                call.sent[exact] = dy, sent
        call.error.sent = sent = sent.to(dy.dtype)
        return None, sent, None, None, None, None


@contextmanager
def tracing(model: nn.Module) -> Iterator[SynapseTracer]:
    """Let a new tracer stand in for the model's synapses, in training mode, and leave the model as it was."""
    modes = {module: module.training for module in model.modules()}
    with forked(model), attached(model) as tracer, own_buffers(model):
        try:
            model.train()
            yield tracer
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def attached(model: nn.Module) -> Iterator[SynapseTracer]:
    """Let a new tracer stand in for the model's synapses."""
    before = {layer: layer.tracer for _, layer in synapses(model)}
    tracer = SynapseTracer([point for _, point in points_of(model)])
    try:
        for layer in before:
            layer.tracer = tracer
        yield tracer
    finally:
        for layer, earlier in before.items():
            layer.tracer = earlier


def forked(model: nn.Module) -> AbstractContextManager[None]:
    """Restore the random state after the block, so that the next block draws the same numbers."""
    return torch.random.fork_rng(devices=list({p.device for p in model.parameters() if p.is_cuda}))
