"""Definition of a claim: its texts, its threshold and the reason for it, and the function that measures it."""

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
"""Difference in accuracy that matters: rules that are closer to each other match, rules further apart do not."""

NEAR = 0.05
"""Difference in accuracy up to which a rule counts as near backprop. In the runs of Akrout et al. on CIFAR-10 with one
hidden layer, feedback alignment, which is not near, ends 5.2 points below backpropagation."""

Direction = Literal["above", "below", "within"]


@dataclass(frozen=True)
class Measured:
    """The statistic of a claim, measured on some evidence.

    Attributes
    ----------
    what : str
        Name of the statistic, such as "sa − bp".
    value, low, high : float
        The statistic and its 95 % interval.
    n : int
        Number of seeds or trials that it is taken over.
    of : str
        Unit of ``n``: "seeds", or "trials" of the rule with the fewest.
    where : str
        Network and data.
    facts : str
        Further numbers that belong to the statistic.
    blocked : str
        Reason why the statistic decides nothing, whatever its interval; "" if it may decide.
    doubt : str
        Reason why the statistic cannot show that the claim holds, although it may show that the claim fails.
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
    """A claim of a paper, and how it is decided.

    Attributes
    ----------
    name : str
        Its short name, in lower case with hyphens.
    paper : str
        Authors, year and arXiv number.
    sentence : str
        The claim, in our words.
    statistic : str
        The statistic that is measured, in words and as a formula.
    direction : str
        Side on which the 95 % interval must lie if the claim holds: "above" or "below" the threshold, or "within" the
        range between its negative and itself.
    threshold : float
        Value that the interval is compared with, as a share: 0.02 is two percentage points.
    reason : str
        Reason for the threshold.
    needs : str
        Parts of a study that the claim needs.
    measure : callable
        Function that returns the statistic, or None where the evidence lacks what it needs.
    resampled : str
        Units over which the interval is taken.
    rests_on : str
        Part of a study from which it is measured; a claim that rests on a grid is decided on each of its networks.
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
    resampled: str = "seeds and test examples"
    rests_on: Literal["grid", "sweep", "transfer"] = "grid"

    @property
    def decision(self) -> str:
        """The decision rule, in words."""
        at = f"{100 * self.threshold:g} points"
        if self.direction == "within":
            where, beyond = f"within ±{at}", "beyond on one side"
        else:
            where = f"{self.direction} {at}".replace("-", "−")
            beyond = "below" if self.direction == "above" else "above"
        return (
            f"seen if the whole interval, over {self.resampled}, lies {where}; not seen if it lies wholly {beyond}; "
            f"otherwise undecided"
        )


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
    resampled: str = "seeds and test examples",
    rests_on: Literal["grid", "sweep", "transfer"] = "grid",
) -> Callable[[Statistic], Statistic]:
    """Register the function that measures a claim in `CLAIMS`, by the claim's name; `Claim` defines the arguments."""

    def register(measure: Statistic) -> Statistic:
        found = Claim(
            name, paper, sentence, statistic, direction, threshold, reason, needs, measure, resampled, rests_on
        )
        enter(CLAIMS, "claim", name, found)
        return measure

    return register


def over_seeds(
    what: str, values: ArrayLike, where: str, *, facts: str = "", blocked: str = "", doubt: str = ""
) -> Measured:
    """Return the mean of a statistic over (test example, seed), and its interval over seeds and test examples."""
    table = np.asarray(values, dtype=float)
    mean = float(table.mean()) if table.size else math.nan
    return Measured(
        what, mean, *intervals.of_crossed_mean(table), table.shape[1], "seeds", where, facts, blocked, doubt
    )


def floor(accuracies: Mapping[str, float], by_chance: float) -> str:
    """State which accuracy is below twice chance, where differences between rules mean nothing; "" if none is.

    Examples
    --------
    >>> floor({"bp": 0.15, "fa": 0.3}, 0.1)
    'bp itself reaches only 15.0 %, below twice chance'
    """
    if math.isnan(by_chance):
        return "the accuracy by chance is not known, because the results do not hold the number of classes"
    for arm, accuracy in accuracies.items():
        if accuracy < 2 * by_chance:
            return f"{arm} itself reaches only {points(accuracy)} %, below twice chance"
    return ""


def left_out(seeds: int) -> str:
    """State how many seeds are left out; "" if none is.

    Examples
    --------
    >>> left_out(1)
    '1 seed is left out because a run failed or has not ended'
    """
    if not seeds:
        return ""
    return f"{seeds} seed{'s are' if seeds > 1 else ' is'} left out because a run failed or has not ended"


def points(value: float) -> str:
    """Return a difference of accuracies as text, in percentage points.

    Examples
    --------
    >>> points(-0.0214)
    '−2.1'
    """
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}".replace("-0.0", "0.0").replace("-", "−")
