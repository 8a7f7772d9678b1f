"""The check of a recorder's probe batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.observe.inputs import Inputs
from wtdiag.trainers.observe.tensors import is_recordable


def probe_tensors(batch: Any) -> tuple[Inputs, Tensor]:
    """Return the inputs and targets of a probe batch: dense tensors of numbers, of which the inputs may be named."""
    match batch:
        case [Mapping() as inputs, Tensor() as targets] if inputs and all(map(_is_named, inputs.items())):
            if is_recordable(targets):
                return dict(inputs), targets
        case [Tensor() as inputs, Tensor() as targets] if is_recordable(inputs) and is_recordable(targets):
            return inputs, targets
        case [Tensor() as inputs, Tensor() as targets]:
            given = ", ".join(f"{tensor.dtype} in {tensor.layout} layout"[6:] for tensor in (inputs, targets))
            raise InputError(f"probe_batch: expected dense tensors of numbers, got {given}")
        case [*parts]:
            given = f"({', '.join(type(part).__name__ for part in parts[:4])}{', …' if len(parts) > 4 else ''})"
        case _:
            given = type(batch).__name__
    raise InputError(f"probe_batch: expected (inputs, targets), two tensors, got {given}")


def _is_named(item: tuple[Any, Any]) -> bool:
    name, tensor = item
    return isinstance(name, str) and name.isidentifier() and isinstance(tensor, Tensor) and is_recordable(tensor)
