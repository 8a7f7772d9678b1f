"""How a run's accuracy falls under perturbed inputs, as ``wtdiag attack`` measured it and ``attack.json`` holds it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.rows import from_row, to_row
from wtdiag.probes.records.schema import read_json, write_json

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
    """Return the result in a run directory, or None if there is none that makes sense; the file may come from anyone.

    Examples
    --------
    >>> read_attacked("no/such/run") is None
    True
    """
    path = Path(run, FILE)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        rows = content["attempts"]
        if not isinstance(rows, list) or len(rows) > _MOST:
            return None
        attempts = tuple(from_row(Attempt, row, FILE) for row in rows)
        counts = {field.name: int(content[field.name]) for field in dataclasses.fields(Attacked)[:-1]}
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return None
    shares = [share for each in attempts for share in (each.accuracy, each.low, each.high)]
    known = all(each.attack in ATTACKS and 0 <= each.strength < 1e6 for each in attempts)
    if not (attempts and known and all(0 <= share <= 1 for share in shares)):
        return None
    return Attacked(**counts, attempts=attempts)


_MOST = 1000  # of the attempts in a file
