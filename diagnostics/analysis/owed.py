"""What a run owes to its lower layers, as ``wtdiag baseline`` measured it and ``baseline.json`` holds it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.rows import check_shares, from_row, to_row
from wtdiag.probes.records.schema import read_json, read_written, write_json

FILE = "baseline.json"


@dataclass(frozen=True)
class Arm:
    """Accuracy with the lower layers in one state, and what the learned ones have over it; from 0 to 1, with intervals.

    Attributes
    ----------
    accuracy, low, high : float
        Mean test accuracy over the seeds and its 95 % interval.
    gain, gain_low, gain_high : float
        Accuracy of the learned lower layers minus this one, seed by seed, and its 95 % interval.
    """

    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Baseline:
    """The result of one ``wtdiag baseline``: by arm, the accuracy of a last layer that was trained anew.

    Attributes
    ----------
    step, seeds, epochs, examples, tested : int
        The snapshot, the number of paired seeds, and the budget: epochs, training examples and test examples.
    arms : dict of Arm
        "learned", "frozen", "re-randomised" and "removed".
    blocks : dict of dict of Arm
        By block, the last three of these arms, as far as they were measured, where that block alone is not as the run
        left it.
    """

    step: int
    seeds: int
    epochs: int
    examples: int
    tested: int
    arms: Mapping[str, Arm]
    blocks: Mapping[str, Mapping[str, Arm]] = dataclasses.field(default_factory=dict)


def write_baseline(baseline: Baseline, run: str | os.PathLike[str]) -> Path:
    """Write the result into a run directory, aside and then moved into place, and return its path.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = Path(run, FILE)
    write_json(path, to_row(baseline))
    return path


def read_baseline(run: str | os.PathLike[str]) -> Baseline | None:
    """Return the result in a run directory, or None if there is none.

    Every field is checked, because the file may come from anyone.

    Raises
    ------
    InputError
        If the file is damaged.

    Examples
    --------
    >>> read_baseline("no/such/run") is None
    True
    """
    path = Path(run, FILE)
    return read_written(_read, path, "baseline") if os.path.lexists(path) else None


def _read(path: Path) -> Baseline:
    content = {"blocks": {}} | read_json(path)  # older files hold no blocks
    arms, blocks = content.get("arms"), content["blocks"]
    if not isinstance(arms, dict) or not isinstance(blocks, dict):
        raise InputError(f"{path}: expected arms, and blocks of arms, by name")
    built = {name: _arms(each, f"{path}: blocks: {name}") for name, each in blocks.items()}
    return from_row(Baseline, content, str(path), arms=_arms(arms, f"{path}: arms"), blocks=built)


def _arms(content: Any, source: str) -> dict[str, Arm]:
    if not isinstance(content, dict):
        raise InputError(f"{source}: is {content!r:.60}; expected arms by name")
    arms = {name: from_row(Arm, row, f"{source}: {name}") for name, row in content.items()}
    for name, arm in arms.items():
        check_shares(dataclasses.asdict(arm), f"{source}: {name}", least=-1)
    return arms
