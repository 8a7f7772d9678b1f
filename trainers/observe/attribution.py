"""The cost of each layer's feedback: a step with exact errors in the layers above against one with them here too."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from wtdiag.probes.floor import comparable
from wtdiag.trainers.layers.convert import feedback_parameters, synapses
from wtdiag.trainers.observe.tracer import Error, Loss, SynapseTracer, attached, forked, tracing

if TYPE_CHECKING:
    from wtdiag.trainers.layers.layers import Synaptic

_RELATIVE_STEP = 1e-3
_RESOLVED = 1e4  # a decrease of the loss counts if it exceeds this many roundings

Gradient = Mapping[str, Tensor]


def attribution(
    model: nn.Module, x: Tensor, target: Tensor, *, loss: Loss = F.cross_entropy, lr: float = math.nan
) -> dict[str, tuple[float, float]]:
    """Return the cost of each layer's feedback, in degrees and in learning, by layer in forward order.

    For each k, B is replaced by W in the layers from k upwards, and the error is sent down again: δₖ is the error at
    the first layer's output, gₖ the gradient of all parameters. With the loss L(θ) on the same batch, the feedback of
    layer k costs

        ∠(δₖ₊₁, δ*) − ∠(δₖ, δ*)  degrees  and  (Dₖ − Dₖ₊₁) / D*,  Dₖ = L(θ) − L(θ − lr gₖ)  (a share of 1),

    where * stands for exact backprop, with B replaced in all layers. Over all layers the costs add up to the rule's
    angle, and to 1 minus its share of backprop's decrease. A cost may be negative, because errors can compensate each
    other. L layers take at most L + 1 backward and L + 2 forward passes. The model is not changed.

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
        itself does not decrease the loss by more than 10⁴ roundings, Dₖ is that of an infinitesimal step, ⟨gₖ, g*⟩.

    Returns
    -------
    dict
        (degrees, share) of each layer, which is (0, 0) for layers that send no error or are exact already. A value is
        NaN if errors vanish, are not finite, or have norms that differ by more than a factor of 10¹², or if no gradient
        reaches any parameter.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), "fa")
    >>> costs = attribution(net, torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> costs["0"], costs["2"][0] > 0
    ((0.0, 0.0), True)
    """
    names = {layer: name for name, layer in synapses(model)}
    trained = _trained(model)
    with tracing(model) as tracer, torch.enable_grad():
        with forked(model):
            value = loss(model(x), target)
        errors_exact, gradient_exact = _backward(tracer, value, trained, tracer.calls)

        def moved(gradient: Gradient, step: float) -> float:
            # The buffers are copied too, because the graph of the first pass needs the model's own unchanged.
            with forked(model), attached(model), torch.no_grad():
                state = {name: buffer.clone() for name, buffer in model.named_buffers()}
                state |= {name: p - step * gradient[name] for name, p in trained.items()}
                return value.item() - float(loss(functional_call(model, state, (x,)), target))

        decrease, total = _decrease(moved, value, trained, gradient_exact, lr)
        angle, down, exact, costs = 0.0, total, set(tracer.calls), {}
        for layer, errors in errors_exact.items():  # from the bottom up, each layer returns to its own feedback
            exact.remove(layer)
            costs[names[layer]] = 0.0, 0.0
            if layer.rule.transports or all(error.sent is None for error in errors):
                continue
            ruled, gradient = _backward(tracer, value, trained, exact)
            before, angle = angle, _angle(_at_first(ruled), _at_first(errors_exact))
            earlier, down = down, decrease(gradient)
            costs[names[layer]] = angle - before, (earlier - down) / total if total > 0 else math.nan
    return costs


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that learn by the task's gradient."""
    feedback = feedback_parameters(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad and name not in feedback}


def _backward(
    tracer: SynapseTracer, value: Tensor, trained: Mapping[str, nn.Parameter], exact: Collection[Synaptic]
) -> tuple[dict[Synaptic, list[Error]], Gradient]:
    """Return all errors, and the task's gradient of all trained parameters."""
    errors, native = tracer.backward(value, exact, list(trained.values()))
    gradients = {id(p): torch.zeros_like(p) if g is None else g for p, g in zip(trained.values(), native, strict=True)}
    with torch.no_grad():
        for layer, calls in tracer.calls.items():
            for call, error in zip(calls, errors[layer], strict=True):
                if error.delta is None:
                    continue
                like = call.weight.to(error.delta.dtype)
                wanted = (False, call.weight.requires_grad, layer.bias is not None and layer.bias.requires_grad)
                products = call.op.backward(error.delta, call.x.to(error.delta.dtype), like, wanted)[1:]
                for tensor, product in zip((call.weight, layer.bias), products, strict=True):
                    if product is not None:
                        for p, part in _down_to(tensor, product, trained.values()):
                            gradients[id(p)] = gradients[id(p)] + part
    return errors, {name: gradients[id(p)] for name, p in trained.items()}


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

    def first_order(gradient: Gradient) -> float:
        return sum(float((gradient[name].double() * exact[name].double()).sum()) for name in exact)

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
