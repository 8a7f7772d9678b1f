"""Descriptions of settings in a few words, for the labels of tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from wtdiag.probes.records.config import as_typed
from wtdiag.trainers.config.settings import Settings

_ORDER = [field.name for field in dataclasses.fields(Settings)]
_NEED_NO_NAME = ("rule", "model", "data")


def describe(settings: Mapping[str, Any]) -> str:
    """Return a description of settings in a few words, without those that are None; others differ in their words.

    Examples
    --------
    >>> describe({"data": "glyphs", "model": "conv"}), describe({"epochs": 8.0}), describe({"batch_norm": False})
    ('conv, glyphs', 'epochs 8', 'no batch norm')
    """
    names = sorted((name for name in settings if settings[name] is not None), key=_ORDER.index)
    return ", ".join(_words(name, settings[name]) for name in names)


def _words(name: str, value: Any) -> str:
    if name in _NEED_NO_NAME:
        return str(value)
    name = name.replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {as_typed(value)}"
