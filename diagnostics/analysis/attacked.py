"""How a run's accuracy falls under perturbed inputs, as ``wtdiag attack`` measured it and ``attack.json`` holds it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.rows import check_shares, from_row, to_row
from wtdiag.probes.records.schema import read_json, read_written, write_json

ATTACKS = {
    "none": "the inputs as they are",
    "fgsm-true": "a step along the true gradient",
    "fgsm-rule": "a step along the rule's own signal",
    "pgd-true": "steps along the true gradient",
    "pgd-rule": "steps along the rule's own signal",
    "noise": "Gaussian noise",
    "blur": "Gaussian blur; strength in pixels",
}
"""What is done to the inputs, by the names in a result."""
FILE = "attack.json"


@dataclass(frozen=True)
class Attempt:
    """Accuracy under one perturbation.

    Attributes
    ----------
    attack : str
        A key of `ATTACKS`.
    strength : float
        Share of the range of each channel: the largest change of a value, or the standard deviation of the noise. For
        the blur, its standard deviation in pixels.
    accuracy, low, high : float
        Share of the test examples that are right, and its exact 95 % interval.
    """

    attack: str
    strength: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Attacked:
    """The result of one ``wtdiag attack``.

    Attributes
    ----------
    step, tested, pgd_steps : int
        The snapshot, the number of test examples, and the steps of PGD.
    attempts : tuple of Attempt
        By attack, in the order of `ATTACKS`, and then by strength.
    """

    step: int
    tested: int
    pgd_steps: int
    attempts: tuple[Attempt, ...]

    def of(self, attack: str) -> tuple[Attempt, ...]:
        """Return the attempts of one attack, by strength."""
        return tuple(each for each in self.attempts if each.attack == attack)


def write_attacked(attacked: Attacked, run: str | os.PathLike[str]) -> Path:
    """Write the result into a run directory, aside and then moved into place, and return its path.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = Path(run, FILE)
    write_json(path, to_row(attacked))
    return path


def read_attacked(run: str | os.PathLike[str]) -> Attacked | None:
    """Return the result in a run directory, or None if there is none.

    Every field is checked, because the file may come from anyone.

    Raises
    ------
    InputError
        If the file is damaged.

    Examples
    --------
    >>> read_attacked("no/such/run") is None
    True
    """
    path = Path(run, FILE)
    return read_written(_read, path, "attack") if os.path.lexists(path) else None


def _read(path: Path) -> Attacked:
    content = read_json(path)
    rows = content.get("attempts")
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST:
        raise InputError(f"{path}: expected from 1 to {_MOST} attempts in a list")
    attempts = tuple(_attempt(row, f"{path}: attempt {number}") for number, row in enumerate(rows, start=1))
    return from_row(Attacked, content, str(path), attempts=attempts)


def _attempt(row: Any, source: str) -> Attempt:
    attempt = from_row(Attempt, row, source)
    check_one_of(f"{source}: attack", attempt.attack, ATTACKS)
    check_shares({"accuracy": attempt.accuracy, "low": attempt.low, "high": attempt.high}, source)
    if not 0 <= attempt.strength < _STRONGEST:
        raise InputError(f"{source}: strength is {attempt.strength:g}; expected one from 0 to {_STRONGEST:g}")
    return attempt


_MOST, _STRONGEST = 1000, 1e6  # of the attempts in a file
