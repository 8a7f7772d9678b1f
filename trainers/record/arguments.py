"""Checks of a recorder's arguments: steps, metrics, entries of the config, and the probe batch."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import check_json
from wtdiag.trainers.observe.tensors import is_recordable


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a config; JSON must be able to hold them, and ``rule`` and the like must be mappings."""
    for key in ("settings", "rule", "versions"):
        if not isinstance(config.get(key, {}), Mapping):
            raise InputError(
                f"config: {key!r} must be a mapping, got {config[key]!r}; entries of your own go under 'settings'"
            )
    try:
        check_json(config)
    except (TypeError, ValueError) as error:
        raise InputError(f"config: cannot be kept as JSON ({error})") from None
    return dict(config)


def two_tensors(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a probe batch, which must be two dense tensors of numbers."""
    match batch:
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


def whole(argument: str, value: Any) -> int:
    """Return a step as an int, which must not be negative."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"{argument}: expected a whole number of at least 0, got {_short(value)}")
    if number >= 2**63:
        raise InputError(f"{argument}: expected a whole number below 2^63, got {_short(value)}")
    return number


def plain_value(name: str, value: Any) -> Any:
    """Return the value of a metric as a plain number or text."""
    if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{name}: expected a whole number of at most 64 bits to log, got {_short(value)}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{name}: expected a number or text to log, got {_short(value)}")


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
