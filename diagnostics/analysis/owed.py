"""What a run owes to its lower layers, as ``wtdiag baseline`` measured it and ``baseline.json`` holds it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import read_json, write_json

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
    write_json(path, dataclasses.asdict(baseline))
    return path


def read_baseline(run: str | os.PathLike[str]) -> Baseline | None:
    """Return the result in a run directory, or None if there is none that makes sense; the file may come from anyone.

    Examples
    --------
    >>> read_baseline("no/such/run") is None
    True
    """
    path = Path(run, FILE)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        arms = _arms(content["arms"])
        blocks = {str(block): _arms(each) for block, each in content.get("blocks", {}).items()}
        counts = {field: int(content[field]) for field in ("step", "seeds", "epochs", "examples", "tested")}
        return Baseline(**counts, arms=arms, blocks=blocks)
    except (InputError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _arms(content: Mapping[str, Any]) -> dict[str, Arm]:
    return {str(name): Arm(**_numbers(Arm, arm)) for name, arm in content.items()}


def _numbers(of: type[Any], content: Mapping[str, Any]) -> dict[str, float]:
    numbers = {field.name: float(content[field.name]) for field in dataclasses.fields(of)}
    if not all(-1.0 <= number <= 1.0 for number in numbers.values()):
        raise ValueError("shares lie between -1 and 1")
    return numbers
