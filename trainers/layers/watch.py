"""A warning about layers that are converted but keep backprop, because the model bypasses their feedback.

That happens if ``forward`` is set on the instance, if a hook replaces the layer's output, or if the model uses a weight
without calling its layer.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.synaptic import Synaptic


def watch(model: nn.Module) -> None:
    """Warn after the first backward pass about each layer whose weight received a gradient with its feedback unused.

    Conversion watches a model, and recording watches it again, because a copy of it, or weights assigned to it, lose
    the watch. A layer that a pass does not reach is judged when it first receives a gradient. Layers under backprop,
    frozen layers and weights that another module shares are not watched.
    """
    layers_of = {name or "model": module for name, module in model.named_modules() if isinstance(module, Synaptic)}
    held = {entry: (name, layer) for name, layer in layers_of.items() for entry in layer.entries_of("weight")}
    users: dict[Tensor, list[tuple[str, Synaptic | None]]] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and not (isinstance(module, Synaptic) and key == "feedback"):
                users.setdefault(parameter, []).append(held.get((module, key), ("", None)))
    bypassed: list[str] = []
    for weight, uses in users.items():
        layers = {layer: name for name, layer in uses if layer is not None and not layer.rule.transports}
        if weight.requires_grad and len(layers) == len(uses):
            _watch(weight, layers, bypassed)


def _watch(weight: Tensor, layers: dict[Synaptic, str], bypassed: list[str]) -> None:
    places = [layer.place for layer in layers]
    names = list(layers.values())

    def judge(gradient: Tensor) -> None:
        handle.remove()
        if any(place.used or place.bypassed for place in places):
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
        f"transport_free: {names}: converted, but still learning by backprop: the weights received gradients, and the "
        "feedback was not used; perhaps forward is set on the layer, a hook replaces its output, or the model uses a "
        "weight without calling it",
        stacklevel=2,
    )
