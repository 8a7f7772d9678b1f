"""Claims on rules that came after 2020: two factors, few dimensions of the error, and feedback that starts aligned."""

from __future__ import annotations

import math

import xarray as xr

from wtdiag.diagnostics.claims.base import MARGIN, NEAR, Measured, claim, over_seeds, points
from wtdiag.diagnostics.claims.gaps import advantage, matches, near
from wtdiag.diagnostics.claims.pairs import compared, held
from wtdiag.diagnostics.comparison.results import StudyResults, chance, methods_of, settings_of

WIDE, NARROW = "ldfa", "ldfa-low"
"""Methods by the rule `ldfa` whose ranks are at least the number of classes, and below it."""
_RANKS = (
    f"two methods by the rule ldfa, called {WIDE}, whose rank is at least the number of classes, and {NARROW}, whose "
    "rank is below it"
)

claim(
    "pfa-matches-bp",
    paper="Li & Benna 2024, arXiv:2405.20594",
    sentence="Product feedback alignment matches backpropagation.",
    statistic="test accuracy of pfa minus that of bp: mean over seeds of a(pfa) − a(bp)",
    direction="within",
    threshold=MARGIN,
    reason="two points are the difference in accuracy that matters; where feedback alignment is no further away, a "
    "match shows nothing",
    needs="a grid with bp, fa and pfa",
)(matches("pfa"))

claim(
    "soft-near-bp",
    paper="Cheon et al. 2025, arXiv:2505.20892",
    sentence="Feedback alignment whose feedback starts partly aligned comes near backpropagation.",
    statistic="test accuracy of soft minus that of bp: mean over seeds of a(soft) − a(bp), where soft is fa whose "
    "coefficient soft is above 0",
    direction="above",
    threshold=-NEAR,
    reason="the distance that feedback alignment, which is not near, keeps in published runs; where feedback alignment "
    "without such a start is within 5 points too, being near shows nothing",
    needs="a grid with bp, fa and a method by the rule fa that is called soft",
)(near("soft"))


@claim(
    "low-rank-loses-nothing",
    paper="Hanut & Kadmon 2025, arXiv:2502.20580",
    sentence="Feedback of low rank loses nothing if its rank is at least the number of classes.",
    statistic=f"test accuracy of {WIDE} minus that of kp, whose feedback learns in the same way at full rank: mean "
    f"over seeds of a({WIDE}) − a(kp)",
    direction="above",
    threshold=-MARGIN,
    reason=f"two points are the difference in accuracy that matters; where {NARROW} loses no more, the task needs no "
    "rank, and that a low one suffices shows nothing",
    needs=f"a grid with bp, kp and {_RANKS}",
)
def low_rank_loses_nothing(evidence: StudyResults) -> Measured | None:
    """Return the gap to full rank; the threshold is −2 points, the difference that matters, see `MARGIN`.

    It decides only where a rank below the number of classes does lose something.
    """
    grid = evidence.grid
    if grid is None or (place := held(grid, ("bp", "kp", WIDE, NARROW))) is None:
        return None
    if (pairs := compared(grid, ("bp", "kp", WIDE, NARROW), place)) is None:
        return None
    blocked, lost = pairs.at_floor("bp") or _not_so_ranked(grid), pairs.mean("kp") - pairs.mean(NARROW)
    doubt = ""
    if lost <= MARGIN:
        doubt = f"the task needs no rank, because {NARROW} too is only {points(lost)} points below kp"
    gap = pairs.gap(WIDE, "kp")
    return over_seeds(f"{WIDE} − kp", gap, pairs.where, facts=pairs.facts, blocked=blocked, doubt=doubt)


@claim(
    "error-rank-helps",
    paper="2026, arXiv:2606.11123",
    sentence="A higher rank of the error signal raises accuracy.",
    statistic=f"test accuracy of {WIDE} minus that of {NARROW}: mean over seeds of a({WIDE}) − a({NARROW})",
    direction="above",
    threshold=0.0,
    reason="the claim states a direction but no amount; the paper raises the rank by an optimiser and by normalised "
    "activations, and here the rule sets it, so that nothing else changes",
    needs=f"a grid with bp and {_RANKS}",
)
def error_rank_helps(evidence: StudyResults) -> Measured | None:
    """Return what rank gains; the threshold is 0, because the claim states only a direction."""
    grid = evidence.grid
    if grid is None or (place := held(grid, ("bp", WIDE, NARROW))) is None:
        return None
    if (pairs := compared(grid, ("bp", WIDE, NARROW), place)) is None:
        return None
    return advantage(pairs, WIDE, NARROW, blocked=_not_so_ranked(grid))


def _not_so_ranked(grid: xr.Dataset) -> str:
    """State why the ranks of the two methods are not those that the claims speak of; "" if they are."""
    methods = methods_of(grid)
    ranks = {}
    for label in (WIDE, NARROW):
        match methods.get(label):
            case {"rule": "ldfa", "coefficients": {"rank": int() | float() as rank}}:
                ranks[label] = rank
            case _:
                return f"the results do not say that {label} is trained by ldfa, and at which rank"
    by_chance = chance(grid)
    if math.isnan(by_chance) or "data" not in settings_of(grid):
        return "the results do not hold one number of classes for all networks"
    classes = round(1 / by_chance)
    if not ranks[NARROW] < classes <= ranks[WIDE]:
        return (
            f"the ranks are {ranks[WIDE]:g} and {ranks[NARROW]:g}, and the number of classes, {classes}, is not "
            "between them"
        )
    return ""
