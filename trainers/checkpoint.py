"""The newest state from which a run can go on: whole or absent, and never executed when read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from probes.errors import InputError
from probes.schema import CHECKPOINT, write_aside


def save(run: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of a run directory."""
    with write_aside(run / CHECKPOINT) as aside:
        torch.save(state, aside)


def load(run: Path) -> dict[str, Any]:
    """Read the checkpoint of a run directory.

    Raises
    ------
    InputError
        If it cannot be read as one.
    """
    path = run / CHECKPOINT
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from None
    if not isinstance(state, dict) or "step" not in state:
        raise InputError(f"{path}: is not a checkpoint of wtdiag")
    return state
