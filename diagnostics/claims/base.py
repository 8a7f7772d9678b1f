"""What a claim is: its texts, its threshold and why it lies there, and the function that measures its statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults
from wtdiag.probes.discovery import enter

MARGIN = 0.02
"""Difference in accuracy that matters: rules nearer to each other than that match, rules further apart do not."""

Direction = Literal["above", "below", "within"]


@dataclass(frozen=True)
class Measured:
    """A statistic as some evidence gives it.

    Attributes
    ----------
    what : str
        What the value is, as "sa − bp".
    value, low, high : float
        It, and its 95 % interval.
    n : int
        How many seeds or trials it is over.
    of : str
        Which of the two: "seeds", or "trials" of the rule with the fewest.
    where : str
        Network and data.
    facts : str
        Further numbers that belong to it.
    blocked : str
        Why it decides nothing, whatever its interval; "" if it may decide.
    doubt : str
        Why it cannot show that the claim holds, though it may show that it does not.
    """

    what: str
    value: float
    low: float
    high: float
    n: int
    of: Literal["seeds", "trials"]
    where: str
    facts: str = ""
    blocked: str = ""
    doubt: str = ""


Statistic = Callable[[StudyResults], Measured | None]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and what decides it.

    Attributes
    ----------
    name : str
        Its slug.
    paper : str
        Authors, year and arXiv number.
    sentence : str
        What is claimed, in our words.
    statistic : str
        What is measured, in words and as a formula.
    direction : str
        Where the 95 % interval must lie if the claim holds: "above" or "below" the threshold, or "within" it and its
        negative.
    threshold : float
        Against which the interval is held, as a share: 0.02 is two percentage points.
    reason : str
        Why the threshold lies there.
    needs : str
        What a study must hold for it.
    measure : callable
        Gives the statistic, or None where the evidence cannot tell.
    resampled : str
        What the interval is over.
    """

    name: str
    paper: str
    sentence: str
    statistic: str
    direction: Direction
    threshold: float
    reason: str
    needs: str
    measure: Statistic
    resampled: str = "seeds"

    @property
    def decision(self) -> str:
        """The decision rule, in words."""
        at = f"{100 * self.threshold:g} points"
        if self.direction == "within":
            where, beyond = f"within ±{at}", "beyond on one side"
        else:
            where = f"{self.direction} {at}".replace("-", "−")
            beyond = "below" if self.direction == "above" else "above"
        return f"seen: the whole interval, over {self.resampled}, {where}; not seen: wholly {beyond}; else undecided"


CLAIMS: dict[str, Claim] = {}


def claim(
    name: str,
    *,
    paper: str,
    sentence: str,
    statistic: str,
    direction: Direction,
    threshold: float,
    reason: str,
    needs: str,
    resampled: str = "seeds",
) -> Callable[[Statistic], Statistic]:
    """Enter what measures a claim in `CLAIMS` under its slug; `Claim` tells what the arguments are."""

    def register(measure: Statistic) -> Statistic:
        found = Claim(name, paper, sentence, statistic, direction, threshold, reason, needs, measure, resampled)
        enter(CLAIMS, "claim", name, found)
        return measure

    return register


def over_seeds(
    what: str, by_seed: ArrayLike, where: str, *, facts: str = "", blocked: str = "", doubt: str = ""
) -> Measured:
    """Return the mean over seeds of a statistic with its bootstrap interval."""
    values = np.asarray(by_seed, dtype=float)
    value = float(values.mean()) if len(values) else math.nan
    return Measured(what, value, *intervals.of_mean(values), len(values), "seeds", where, facts, blocked, doubt)


def floor(accuracies: Mapping[str, float], by_chance: float) -> str:
    """Say which accuracy is below twice chance, where differences between rules mean nothing; "" if none is.

    Examples
    --------
    >>> floor({"bp": 0.15, "fa": 0.3}, 0.1)
    'bp itself answers 15.0 %, below twice chance'
    """
    if math.isnan(by_chance):
        return "the accuracy by chance is not known: the results do not tell the number of classes"
    for arm, accuracy in accuracies.items():
        if accuracy < 2 * by_chance:
            return f"{arm} itself answers {points(accuracy)} %, below twice chance"
    return ""


def left_out(seeds: int) -> str:
    """Say how many seeds are left out; "" if none is.

    Examples
    --------
    >>> left_out(1)
    '1 seed is left out for runs that failed or have not ended'
    """
    return f"{seeds} seed{'s are' if seeds > 1 else ' is'} left out for runs that failed or have not ended" * (
        seeds > 0
    )


def points(value: float) -> str:
    """Write a difference of accuracies in percentage points.

    Examples
    --------
    >>> points(-0.0214)
    '−2.1'
    """
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}".replace("-0.0", "0.0").replace("-", "−")
