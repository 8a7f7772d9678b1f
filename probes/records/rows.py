"""Dataclasses as rows of JSON, with null for numbers that are not finite, and every field checked on reading."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from wtdiag.probes.errors import InputError

T = TypeVar("T")

_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}


def to_row(entry: Any) -> dict[str, Any]:
    """Return a dataclass as a JSON object; numbers that are not finite become null."""
    row: dict[str, Any] = _plain(dataclasses.asdict(entry))
    return row


def from_row(cls: type[T], row: Any, source: str, **built: Any) -> T:
    """Return a dataclass from a JSON object that has exactly its fields, each of the right type; null becomes NaN.

    Parameters
    ----------
    cls
        The dataclass; its fields are texts, numbers, or given in ``built``.
    row
        The JSON value that was read.
    source
        The file that it was read from, for messages.
    **built
        Fields that the caller has already built from those of the row.

    Raises
    ------
    InputError
        If the row is not such an object.

    Examples
    --------
    >>> from wtdiag.diagnostics.findings.finding import Evidence
    >>> number = Evidence("norm_ratio", 12.0, 3.0, ">", step=7)
    >>> from_row(Evidence, to_row(number), "findings.json") == number
    True
    """
    fields = {field.name: str(field.type) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(row, dict) or row.keys() != fields.keys():
        raise InputError(f"{source}: expected the fields {', '.join(fields)}")
    values = dict(built)
    for name, kind in fields.items():
        if name in built:
            continue
        value = math.nan if row[name] is None and kind == "float" else row[name]
        if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
            raise InputError(f"{source}: {name} is {value!r:.60}; expected {kind}")
        values[name] = float(value) if kind == "float" else value
    return cls(**values)


def check_shares(shares: Mapping[str, float], source: str, least: float = 0.0) -> None:
    """Require numbers that were read from a file to lie between ``least`` and 1.

    Raises
    ------
    InputError
        If one does not, or is NaN; the message names it.

    Examples
    --------
    >>> check_shares({"accuracy": 1.5}, "attack.json")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: attack.json: accuracy is 1.5; expected a share from 0 to 1
    """
    for name, share in shares.items():
        if not least <= share <= 1:
            raise InputError(f"{source}: {name} is {share:g}; expected a share from {least:g} to 1")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
