"""Verdicts on claims: the statistic measured on the evidence, the verdict, and a sentence that explains it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.diagnostics.claims.base import CLAIMS, Claim, Measured, points
from wtdiag.diagnostics.claims.pairs import networks
from wtdiag.diagnostics.comparison.results import StudyResults
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.files import read_json, write_json
from wtdiag.probes.records.rows import from_row, to_row

SEEN, NOT_SEEN, UNDECIDED, NOT_TESTED = "seen", "not seen", "undecided at this scale", "not tested"
VERDICTS = (SEEN, NOT_SEEN, UNDECIDED, NOT_TESTED)
LEAST = {"seeds": 5, "trials": 20}
"""Fewest seeds or trials that decide anything, because few say little about how the others are distributed."""

_FORMAT = 2
_FORMERLY = {1: {"network": ""}}
"""By older formats that can be read, the fields that they lack."""


@dataclass(frozen=True)
class Result:
    """The verdict on a claim, with the numbers behind it.

    Attributes
    ----------
    name, paper, claim, statistic : str
        As in `diagnostics.claims.Claim`; ``claim`` is its sentence.
    value, low, high : float
        The statistic and its 95 % interval, as shares: 0.02 is two percentage points. NaN if it was not tested.
    n : int
        Number of seeds or trials.
    threshold : float
        Value that the interval was compared with.
    verdict : str
        One of `VERDICTS`.
    why : str
        A sentence with numbers, seeds, network and data.
    network : str
        Network of the study that it is decided on; "" if the study has only one.
    """

    name: str
    paper: str
    claim: str
    statistic: str
    value: float
    low: float
    high: float
    n: int
    threshold: float
    verdict: str
    why: str
    network: str = ""

    @property
    def on(self) -> str:
        """The network in brackets, to be put behind the name of the claim; "" if the study has only one."""
        return f" ({self.network})" if self.network else ""


def decide(evidence: StudyResults, names: Iterable[str] | None = None) -> tuple[Result, ...]:
    """Decide claims by the results of a study.

    A claim is *seen* if the whole 95 % interval of its statistic lies where the claim says, *not seen* if it lies
    wholly on the other side of the threshold, and otherwise *undecided at this scale*. It is also undecided with fewer
    than 5 seeds or 20 trials, if backpropagation itself has not learned, or if the task does not tell rules apart. It
    is *not tested* if the evidence lacks what it needs. A claim on a grid of several networks is decided on each.

    Parameters
    ----------
    evidence
        Results that `diagnostics.comparison.results.gather` returns.
    names
        Names in `CLAIMS`; default: all.

    Raises
    ------
    InputError
        If a name is not known.

    Examples
    --------
    >>> result, = decide(StudyResults(), ["ia-gap-widens"])
    >>> result.verdict, result.why
    ('not tested', 'The claim needs a grid with bp and ia whose factor depth has several levels.')
    """
    chosen = list(CLAIMS) if names is None else list(names)
    for name in chosen:
        check_one_of("claims", name, CLAIMS)
    return tuple(result for name in chosen for result in _decided(CLAIMS[name], evidence))


def _decided(claim: Claim, evidence: StudyResults) -> list[Result]:
    """Decide a claim on each network of the grid that tests it, or once if it does not rest on a grid."""
    grids = networks(evidence.grid) if claim.rests_on == "grid" and evidence.grid is not None else {"": evidence.grid}
    measured = {name: claim.measure(dataclasses.replace(evidence, grid=grid)) for name, grid in grids.items()}
    found = [_result_on(name, claim, each) for name, each in measured.items() if each is not None]
    head = claim.name, claim.paper, claim.sentence, claim.statistic, math.nan, math.nan, math.nan, 0, claim.threshold
    return found or [Result(*head, NOT_TESTED, f"The claim needs {claim.needs}.")]


def _result_on(network: str, claim: Claim, measured: Measured) -> Result:
    head = claim.name, claim.paper, claim.sentence, claim.statistic
    verdict, reason = _verdict(claim, measured)
    low, high = measured.low, measured.high
    why = f"Over {measured.n} {measured.of} of {measured.where}, {measured.what} is {points(measured.value)} points"
    interval = "" if math.isnan(low) else f"95 % interval {points(low)} to {points(high)}"
    facts = "; ".join(filter(None, (interval, measured.facts)))
    why += f" ({facts})" if facts else ""
    return Result(*head, measured.value, low, high, measured.n, claim.threshold, verdict, f"{why}: {reason}.", network)


def _verdict(claim: Claim, measured: Measured) -> tuple[str, str]:
    """Compare an interval with a threshold, and state where it lies or why it decides nothing."""
    least = LEAST[measured.of]
    if measured.n < least:
        return UNDECIDED, f"fewer than {least} {measured.of} decide nothing"
    if measured.blocked:
        return UNDECIDED, measured.blocked
    low, high, at = measured.low, measured.high, claim.threshold
    if claim.direction == "within":
        holds, fails = -at < low and high < at, low > at or high < -at
        where, beyond, edge = "within", "beyond", f"±{100 * at:g}"
    else:
        sides = {"above": low > at, "below": high < at}
        where, beyond = ("above", "below") if claim.direction == "above" else ("below", "above")
        holds, fails, edge = sides[where], sides[beyond], f"{100 * at:g}".replace("-", "−")
    if holds and measured.doubt:
        return UNDECIDED, measured.doubt
    if holds:
        return SEEN, f"the interval lies wholly {where} {edge} points"
    if fails:
        return NOT_SEEN, f"the interval lies wholly {beyond} {edge} points"
    return UNDECIDED, f"the interval does not lie wholly on one side of {edge} points"


def write_claims(results: Iterable[Result], path: str | os.PathLike[str]) -> None:
    """Write results as JSON, atomically; NaN is written as null.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    write_json(path, {"format": _FORMAT, "claims": [to_row(each) for each in results]})


def read_claims(path: str | os.PathLike[str]) -> tuple[Result, ...]:
    """Read what `write_claims` wrote, and check every field, because the file may come from anyone.

    Raises
    ------
    InputError
        If the file is missing, not JSON, of another format, or a field is of the wrong kind.
    """
    match read_json(path):
        case {"format": int(form), "claims": [*rows]} if form in (_FORMAT, *_FORMERLY):
            lacking = _FORMERLY.get(form, {})
            rows = [lacking | row if isinstance(row, dict) else row for row in rows]
            return tuple(_result(row, f"{Path(path)}: claim {number}") for number, row in enumerate(rows, start=1))
    raise InputError(f"{path}: expected claims of format {_FORMAT}; `wtdiag study` writes them")


def _result(row: Any, source: str) -> Result:
    result = from_row(Result, row, source)
    check_one_of(f"{source}: verdict", result.verdict, VERDICTS)
    return result
