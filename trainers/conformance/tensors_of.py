"""The tensors that a network from elsewhere can reach: parameters, buffers, attributes, and those of its hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"


def tensors_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the floating-point tensors of one module, without its children: those of its hooks included.

    Examples
    --------
    >>> sorted(tensors_of(nn.Linear(2, 3), "fc"))
    ['fc.bias', 'fc.weight']
    """
    dot = f"{prefix}." if prefix else ""
    found: dict[str, Tensor] = {}
    own = {**module._parameters, **module._buffers, **vars(module)}
    for name, value in own.items():
        if not name.startswith("_") or isinstance(value, Tensor):
            found |= {f"{dot}{key}": tensor for key, tensor in _inside(name, value)}
    for kind in _HOOKS:
        for hook in getattr(module, kind, {}).values():
            found |= {f"hook of {prefix or 'model'}: {key}": tensor for key, tensor in _of_function(hook)}
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point tensors of a module and of all modules in it."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        found |= tensors_of(module, name)
    return found


def _inside(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an attribute, in lists and mappings too."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _inside(f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _inside(f"{name}.{index}", part)


def _of_function(function: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a function sees: in its closure, its defaults and among its globals."""
    function = getattr(function, "func", function)  # a partial's own function
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    defaults = function.__defaults__ or ()
    first = code.co_argcount - len(defaults)
    seen = dict(zip(code.co_varnames[first : code.co_argcount], defaults, strict=True))
    seen |= {n: cell.cell_contents for n, cell in zip(code.co_freevars, function.__closure__ or (), strict=False)}
    seen |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, value in seen.items():
        yield from _inside(name, value)


@contextmanager
def unchanged(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Give tensors back their values at the end."""
    held = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        for tensor, value in held:
            tensor.data.copy_(value)


@contextmanager
def replaced(tensor: Tensor, value: Tensor) -> Iterator[None]:
    """Give a tensor another value for a while, in place and unseen by autograd."""
    before = tensor.detach().clone()
    tensor.data.copy_(value)
    try:
        yield
    finally:
        tensor.data.copy_(before)


def other_values(tensor: Tensor) -> Tensor:
    """Return random values of a tensor's size."""
    scale = float(tensor.detach().float().square().mean().sqrt()) or 1.0
    return torch.randn_like(tensor) * scale
