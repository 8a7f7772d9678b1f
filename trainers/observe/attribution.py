"""The cost of each layer's feedback: its share of what the rule's error loses against that of exact backprop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.probes.floor import comparable
from wtdiag.trainers.layers.convert import feedback_parameters, synapses
from wtdiag.trainers.observe.inputs import Inputs, output_of, output_with
from wtdiag.trainers.observe.shapley import marginals, shapley
from wtdiag.trainers.observe.tracer import Call, Error, Loss, SynapseTracer, attached, forked, tracing

if TYPE_CHECKING:
    from wtdiag.trainers.layers.synaptic import Synaptic

_RELATIVE_STEP = 1e-3
_RESOLVED = 1e4  # a decrease of the loss counts if it exceeds this many roundings
_RESOLUTION = 1.0, 0.01  # standard errors of a degree and of one hundredth of the decrease are small enough

Gradient = Mapping[str, Tensor]


class LayerCost(NamedTuple):
    """What the feedback of a layer costs, in degrees and in learning, each with its standard error."""

    angle: float
    loss: float
    angle_se: float = 0.0
    loss_se: float = 0.0


def attribution(
    model: nn.Module, x: Inputs, target: Tensor, *, loss: Loss = F.cross_entropy, lr: float = math.nan
) -> dict[str, LayerCost]:
    """Return the cost of each layer's feedback, in degrees and in learning, by layer in forward order.

    For a set R of layers, the error is sent down through B in the layers of R, and through W in the others: δ(R) is the
    error at the first layer's output, g(R) the gradient of all parameters. With the loss L(θ) on the same batch,

        ∠(δ(R), δ(∅))  degrees  and  1 − D(R) / D(∅),  D(R) = L(θ) − L(θ − lr g(R)),

    are what the feedback of R costs together. A layer's cost is its Shapley value (`trainers.observe.shapley`): what
    it adds to that of other layers, averaged over all orders of the layers. The costs of all layers add up to the
    rule's angle, and to 1 minus its share of backprop's decrease. A cost is negative if the layer's feedback makes up
    for that of others, or if it lengthens a step that is too short. L layers take at most max(64, 4 L) passes
    forward and backward. The model is not changed.

    A network with direct feedback, through which no error passes from layer to layer, is counted in one order, from
    the bottom up: elsewhere W would have to send on an error that the rule never sends there.

    Parameters
    ----------
    model
        A converted network.
    x, target
        The batch.
    loss
        Function of outputs and targets.
    lr
        Learning rate of a plain step. By default it is the rate at which backprop moves the parameters by 10⁻³ of their
        norm. Terms that a rule adds to the task's gradient of W (Kolen-Pollack's decay) are left out. If backprop
        itself does not decrease the loss by more than 10⁴ roundings, D(R) is that of an infinitesimal step,
        ⟨g(R), g(∅)⟩.

    Returns
    -------
    dict
        The cost of each layer; zero for layers that send no error or are exact already. A cost is NaN if errors
        vanish, are not finite, or have norms that differ by more than a factor of 10¹², or if no gradient reaches any
        parameter.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), "fa")
    >>> costs = attribution(net, torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> costs["0"].angle, costs["2"].angle > 0
    (0.0, True)
    """
    names = {layer: name for name, layer in synapses(model)}
    trained = _trained(model)
    with tracing(model) as tracer, torch.enable_grad():
        tracer.remembers = True
        with forked(model):
            value = loss(output_of(model, x), target)
        backward = _Backward(tracer, value, trained)
        errors_exact, gradient_exact = backward(tracer.calls)

        def moved(gradient: Gradient, step: float) -> float:
            # The buffers are copied too, because the graph of the first pass needs the model's own unchanged.
            with forked(model), attached(model), torch.no_grad():
                state = {name: buffer.clone() for name, buffer in model.named_buffers()}
                state |= {name: p - step * gradient[name] for name, p in trained.items()}
                return value.item() - float(loss(output_with(model, state, x), target))

        decrease, total = _decrease(moved, value, trained, gradient_exact, lr)
        carrying = [
            layer
            for layer, errors in errors_exact.items()
            if not layer.rule.transports and any(error.sent is not None for error in errors)
        ]
        exact_at_first = _at_first(errors_exact)

        def cost(ruled: frozenset[int]) -> tuple[float, float]:
            if not ruled:
                return 0.0, 0.0
            exact = set(tracer.calls) - {carrying[player] for player in ruled}
            errors, gradient = backward(exact)
            share = 1 - decrease(gradient) / total if total > 0 else math.nan
            return _angle(_at_first(errors), exact_at_first), share

        if any(layer.error_path is not None for layer in carrying):
            shares = marginals(cost, range(len(carrying)))
            deviations = 0 * shares
        else:
            shares, deviations = shapley(cost, len(carrying), _RESOLUTION)
    costs = {names[layer]: LayerCost(0.0, 0.0) for layer in tracer.calls}
    for layer, own, deviation in zip(carrying, shares.tolist(), deviations.tolist(), strict=True):
        costs[names[layer]] = LayerCost(*own, *deviation)
    return costs


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that learn by the task's gradient."""
    feedback = feedback_parameters(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad and name not in feedback}


class _Backward:
    """Backward passes of one loss that differ in few layers, of which only what differs is computed."""

    def __init__(self, tracer: SynapseTracer, value: Tensor, trained: Mapping[str, nn.Parameter]) -> None:
        self._tracer, self._value, self._trained = tracer, value, trained
        self._products: dict[int, tuple[Tensor, tuple[Tensor | None, ...]]] = {}  # by use: its error, what it gives
        self._totals: dict[str, tuple[list[Tensor], Tensor]] = {}  # by parameter: the parts, and their sum

    def __call__(self, exact: Collection[Synaptic]) -> tuple[dict[Synaptic, list[Error]], Gradient]:
        """Return all errors, and the task's gradient of all trained parameters, with W in the layers ``exact``.

        A gradient that is the same as in the last pass is the same tensor.
        """
        errors, native = self._tracer.backward(self._value, exact, list(self._trained.values()))
        parts: dict[int, list[Tensor]] = {id(p): [] for p in self._trained.values()}
        with torch.no_grad():
            for layer, calls in self._tracer.calls.items():
                for call, error in zip(calls, errors[layer], strict=True):
                    if error.delta is None:
                        continue
                    products = self._products_of(layer, call, error.delta)
                    for tensor, product in zip((call.weight, layer.bias), products, strict=True):
                        if product is not None:
                            for p, part in _down_to(tensor, product, self._trained.values()):
                                parts[id(p)].append(part)
            return errors, {
                name: self._total(name, p, own, parts[id(p)])
                for (name, p), own in zip(self._trained.items(), native, strict=True)
            }

    def _products_of(self, layer: Synaptic, call: Call, delta: Tensor) -> tuple[Tensor | None, ...]:
        known = self._products.get(id(call))
        if known is None or not torch.equal(known[0], delta):
            known = self._products[id(call)] = delta, _weight_gradients(layer, call, delta)
        return known[1]

    def _total(self, name: str, p: nn.Parameter, own: Tensor | None, parts: list[Tensor]) -> Tensor:
        """Return the sum of what native modules and layers give; that of layers alone is kept while its parts are."""
        if own is not None:
            return sum(parts, own)
        known = self._totals.get(name)
        if known is None or list(map(id, known[0])) != list(map(id, parts)):
            known = self._totals[name] = parts, sum(parts, torch.zeros_like(p))
        return known[1]


def _weight_gradients(layer: Synaptic, call: Call, delta: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the weight and of the bias that are wanted."""
    wanted = (False, call.weight.requires_grad, layer.bias is not None and layer.bias.requires_grad)
    return call.op.backward(delta, call.x.to(delta.dtype), call.weight.to(delta.dtype), wanted)[1:]


def _down_to(
    tensor: Tensor, gradient: Tensor, parameters: Collection[nn.Parameter]
) -> Iterable[tuple[nn.Parameter, Tensor]]:
    """Return the parameters from which ``tensor`` is computed, or itself if it is one, with their gradients."""
    if tensor.is_leaf:
        return ((p, gradient) for p in parameters if p is tensor)
    parts = torch.autograd.grad(
        tensor, tuple(parameters), gradient.to(tensor.dtype), retain_graph=True, allow_unused=True
    )
    return ((p, part) for p, part in zip(parameters, parts, strict=True) if part is not None)


def _decrease(
    moved: Callable[[Gradient, float], float],
    value: Tensor,
    trained: Mapping[str, nn.Parameter],
    exact: Gradient,
    lr: float,
) -> tuple[Callable[[Gradient], float], float]:
    """Return the decrease of the loss as a function of the gradient, and its value for exact backprop."""
    doubled = {name: gradient.double() for name, gradient in exact.items()}
    products: dict[str, tuple[Tensor, float]] = {}

    def first_order(gradient: Gradient) -> float:
        for name, own in gradient.items():
            if name not in products or products[name][0] is not own:
                products[name] = own, float((own.double() * doubled[name]).sum())
        return sum(products[name][1] for name in exact)

    square = first_order(exact)
    if math.isnan(lr) and square > 0:
        size = sum(float(p.detach().double().square().sum()) for p in trained.values())
        lr = _RELATIVE_STEP * math.sqrt(size / square)
    total = moved(exact, lr)
    if total > _RESOLVED * torch.finfo(value.dtype).eps * abs(value.item()):
        return lambda gradient: moved(gradient, lr), total
    return first_order, square


def _at_first(errors: Mapping[Synaptic, list[Error]]) -> Tensor:
    """Return the error at the output of the first layer, over all its uses."""
    deltas = [error.delta.flatten() for error in next(iter(errors.values()), []) if error.delta is not None]
    return torch.cat(deltas) if deltas else torch.empty(0, device="cpu")


def _angle(first: Tensor, second: Tensor) -> float:
    """Return the angle in degrees, or NaN if an error is too small or too large for an angle."""
    tiny = torch.finfo(first.dtype).tiny
    first, second = first.double(), second.double()
    a, b = float(first.norm()), float(second.norm())
    if not comparable(a, b, size=len(first), tiny=tiny):
        return math.nan
    u, v = first / a, second / b
    return math.degrees(2 * math.atan2(float((u - v).norm()), float((u + v).norm())))
