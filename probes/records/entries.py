"""Checks of what a user records beside weights: steps, metrics and entries of the config."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import check_json


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
    shape = getattr(value, "shape", None)  # of an array of any library
    if isinstance(shape, Sequence) and math.prod(shape) == 1:
        value = value.item() if hasattr(value, "item") else np.asarray(value).item()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{name}: expected a whole number of at most 64 bits to log, got {_short(value)}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{name}: expected a number or text to log, got {_short(value)}")


def is_plain(value: Any) -> bool:
    """Return whether `plain_value` takes a value."""
    try:
        plain_value("", value)
    except InputError:
        return False
    return True


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
