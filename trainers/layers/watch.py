"""Layers that count as converted but keep backprop, because the model goes past their feedback: found and named.

So does a layer whose ``forward`` is set on the instance, and a weight that the model uses without calling its layer.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.layers import Synaptic


def watch(model: nn.Module) -> None:
    """Warn after the first backward pass of each layer whose weight got a gradient though its feedback was not used.

    Layers that a pass does not reach get no gradient, and are judged when they first do. Not watched are layers that
    backprop, frozen ones, and weights that are also another module's.
    """
    users: dict[Tensor, dict[nn.Module, str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users.setdefault(parameter, {})[module] = name or "model"
    bypassed: list[str] = []
    for weight, modules in users.items():
        layers = {layer: name for layer, name in modules.items() if isinstance(layer, Synaptic)}
        if weight.requires_grad and len(layers) == len(modules) and all(_has(layer, weight) for layer in layers):
            _watch(weight, layers, bypassed)


def _has(layer: Synaptic, weight: Tensor) -> bool:
    return layer._parameters.get("weight") is weight and not layer.rule.transports


def _watch(weight: Tensor, layers: dict[Synaptic, str], bypassed: list[str]) -> None:
    places = [layer.place for layer in layers]
    names = list(layers.values())

    def judge(gradient: Tensor) -> None:
        handle.remove()
        if any(place.used for place in places):
            return
        for place in places:
            place.bypassed = True
        if not bypassed:  # one warning for all, when the pass is over
            torch.autograd.Variable._execution_engine.queue_callback(lambda: _warn(bypassed))
        bypassed.extend(names)

    handle = weight.register_hook(judge)  # type: ignore[no-untyped-call]


def _warn(bypassed: list[str]) -> None:
    names, bypassed[:] = ", ".join(reversed(bypassed)), []
    warnings.warn(
        f"transport_free: {names}: converted, but keep backprop: the weights got gradients, and the feedback was not "
        "used, as where forward is set on the layer, or the model uses a weight without calling its layer",
        stacklevel=2,
    )
