"""The newest state from which a run can be resumed: it is whole or absent, and reading it executes nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from wtdiag.probes.errors import InputError, first_line
from wtdiag.probes.records.files import write_through
from wtdiag.probes.records.schema import CHECKPOINT
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.record import torch_file

DAMAGE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)
"""The errors that a damaged checkpoint may cause while it is read and restored."""


def save(run: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of a run directory; the same state gives the same bytes."""
    # If torch were given a path, it would write the name into the file, and that of a temporary file is random.
    with write_through(run / CHECKPOINT, keep=False) as stream:
        torch.save(_canonical(state), cast(IO[bytes], stream))


def _canonical(value: Any) -> Any:
    """Return ``value`` with equal texts as one object and no shared containers, because pickles show what is shared."""
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_canonical, value))
    return sys.intern(value) if isinstance(value, str) else value


def load(run: Path) -> dict[str, Any]:
    """Read the checkpoint of a run directory.

    Raises
    ------
    InputError
        If it cannot be read as one.
    """
    path = run / CHECKPOINT
    try:
        state = torch_file.load(path)
    except Exception as error:  # whatever zipfile, pickle and torch raise for a damaged file
        raise InputError(f"{path}: cannot be read as a checkpoint ({first_line(error)})") from None
    if not isinstance(state, dict) or "step" not in state:
        raise InputError(f"{path}: is not a checkpoint of wtdiag")
    return state


def forward_facts(model: nn.Module) -> dict[str, list[int | bool | None]]:
    """Return what the forward passes showed of each layer: whether it carries error, and its place among the others.

    Places are negative, so that in any process a layer that has not run yet comes after those that have.
    """
    ran = [name for name, layer in in_forward_order(synapses(model)) if layer.place.order is not None]
    places = {name: number - len(ran) for number, name in enumerate(ran)}
    return {name: [layer.carries_error, places.get(name)] for name, layer in synapses(model)}


def restore_forward_facts(model: nn.Module, facts: dict[str, list[Any]]) -> None:
    """Restore the facts that `forward_facts` returned.

    Raises
    ------
    ValueError
        If ``facts`` are not such facts.
    """
    for name, layer in synapses(model):
        carries_error, order = facts[name]
        if not isinstance(carries_error, bool) or not isinstance(order, int | None):
            raise ValueError(f"layers: expected a truth value and a place for {name}, got {facts[name]!r}")
        layer.place.carries_error, layer.place.order = carries_error, order
