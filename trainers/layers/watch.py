"""Warnings about layers that are converted but keep backprop, because the model bypasses their feedback.

That happens if ``forward`` is set on the instance, if a hook replaces the layer's output, or if the model uses a weight
without calling its layer. It may do so beside its calls, as an autoencoder does whose decoder is the transposed weight.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wtdiag.trainers.layers.synaptic import Synaptic


def watch(model: nn.Module) -> None:
    """Warn after the first backward pass about each layer whose weight received a gradient with its feedback unused.

    Conversion watches a model, and recording watches it again, because a copy of it, or weights assigned to it, lose
    the watch. A layer that a pass does not reach is judged when it first receives a gradient. Layers under backprop,
    frozen layers and weights that another module shares are not watched.
    """
    bypassed: list[str] = []
    watched = _watched(model)
    for weight, layers in watched.items():
        _watch(weight, layers, bypassed)
    if watched and not any(isinstance(hook, UsesBeside) for hook in model._forward_hooks.values()):
        model.register_forward_hook(UsesBeside())


class UsesBeside:
    """A hook that looks in the first pass with gradients for uses of weights beside the calls of their layers."""

    def __call__(self, model: nn.Module, inputs: Any, output: Any) -> None:
        """Warn about each such use, and remove the hook."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or getattr(model, "_is_replica", False):
            return
        nodes = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
        if not nodes:
            return
        for key in [key for key, hook in model._forward_hooks.items() if hook is self]:
            del model._forward_hooks[key]
        variables, called = _reached(nodes)
        names = []
        for weight, layers in _watched(model).items():
            for layer, name in layers.items():
                if weight in variables and layer.place.key in called:
                    layer.place.beside = True
                    names.append(name)
        if names:
            warnings.warn(
                f"transport_free: {', '.join(names)}: the model also uses the weight without calling the layer, and "
                "the error of that use passes through the weight, as in backprop (in a penalty, that does no harm)",
                stacklevel=2,
            )


def _reached(waiting: list[Any]) -> tuple[set[Tensor], set[int]]:
    """Return the parameters that autograd reaches from some nodes other than through layers, and the layers' keys."""
    variables, called, seen = set(), set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [each for each, _ in node.next_functions]
        key = getattr(node, "_wtdiag_place", None)
        if key is not None:
            called.add(key)
            following = following[:1]  # the input; the others are the layer's own parameters
        elif (variable := getattr(node, "variable", None)) is not None:
            variables.add(variable)
        waiting += following
    return variables, called


def _watched(model: nn.Module) -> dict[Tensor, dict[Synaptic, str]]:
    """Return the layers by name that each watched parameter belongs to."""
    layers_of = {name or "model": module for name, module in model.named_modules() if isinstance(module, Synaptic)}
    held = {entry: (name, layer) for name, layer in layers_of.items() for entry in layer.entries_of("weight")}
    users: dict[Tensor, list[tuple[str, Synaptic | None]]] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and not (isinstance(module, Synaptic) and key == "feedback"):
                users.setdefault(parameter, []).append(held.get((module, key), ("", None)))
    watched = {}
    for weight, uses in users.items():
        layers = {layer: name for name, layer in uses if layer is not None and not layer.rule.transports}
        if weight.requires_grad and layers and len(layers) == len(uses):
            watched[weight] = layers
    return watched


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
