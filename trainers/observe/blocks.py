"""The hidden signal that enters and leaves each block of a network, such as a residual or a transformer block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.matrices import Matrix
from wtdiag.trainers.layers.synaptic import Synaptic

_SEQUENCES = nn.Sequential, nn.ModuleList, nn.ModuleDict

Passed = dict[nn.Module, tuple[Tensor, Tensor]]
"""What entered and what left a block."""


def blocks(model: nn.Module) -> dict[Synaptic, nn.Module]:
    """Return for each layer the innermost block that holds it, if there is one.

    A block is an element of a sequence of modules that has a forward method of its own: chains of modules have none of
    their own, and layers with several matrices are layers.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 2, enable_nested_tensor=False)
    >>> found = blocks(transport_free(encoder, "fa"))
    >>> len(found), len(set(found.values()))
    (8, 2)
    """
    modules = dict(model.named_modules())
    found: dict[Synaptic, nn.Module] = {}
    for name, layer in synapses(model):
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            module, parent = modules[".".join(parts[:end])], modules[".".join(parts[: end - 1])]
            is_layer = any(isinstance(child, Matrix) for child in module.children())
            if isinstance(parent, _SEQUENCES) and not isinstance(module, _SEQUENCES) and not is_layer:
                found[layer] = module
                break
    return found


@contextmanager
def passing(modules: Sequence[nn.Module]) -> Iterator[Passed]:
    """Note in the block of code what enters and leaves some modules, as it is then: what follows may overwrite it."""
    entered: dict[nn.Module, Tensor] = {}
    passed: Passed = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            entered[module] = args[0].detach().clone()

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module in entered and isinstance(output, Tensor):
            passed[module] = entered.pop(module), output.detach().clone()

    handles = [module.register_forward_pre_hook(before) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()
