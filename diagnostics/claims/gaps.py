"""The statistics that claims of several papers share: gaps in accuracy between two rules on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wtdiag.diagnostics.claims.base import MARGIN, NEAR, Measured, Statistic, over_seeds, points
from wtdiag.diagnostics.claims.pairs import Pairs, compared, fa_tells, held
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults


def outperforms(rule: str, others: Sequence[str]) -> Statistic:
    """Return the statistic of a claim that a rule reaches a higher accuracy than others."""

    def measure(evidence: StudyResults) -> Measured | None:
        """Return the rule's advantage; the threshold is 2 points, so that no rule both matches and outperforms another.

        Among several rules to outperform, the one with the highest mean counts.
        """
        grid = evidence.grid
        there = [other for other in others if grid is not None and other in grid["rule"].values]
        if grid is None or not there:
            return None
        place = held(grid, ("bp", rule, *there))
        by_other = {other: compared(grid, ("bp", other, rule), place) for other in there}
        present = {other: pairs for other, pairs in by_other.items() if pairs is not None}
        if not present:
            return None
        other = max(present, key=lambda name: np.nan_to_num(present[name].mean(name), nan=-1))
        return advantage(present[other], rule, other)

    return measure


def near(rule: str) -> Statistic:
    """Return the statistic of a claim that a rule comes near backpropagation."""

    def measure(evidence: StudyResults) -> Measured | None:
        """Return the gap to backprop; the threshold is −5 points, see `NEAR`.

        It decides only where feedback alignment is further away than that.
        """
        grid = evidence.grid
        if grid is None or (place := held(grid, ("bp", rule))) is None:
            return None
        if (pairs := compared(grid, ("bp", rule), place)) is None:
            return None
        gap, blocked, doubt = pairs.gap(rule, "bp"), pairs.at_floor("bp"), fa_tells(grid, NEAR, place)
        return over_seeds(f"{rule} − bp", gap, pairs.where, facts=pairs.facts, blocked=blocked, doubt=doubt)

    return measure


def matches(rule: str, least_depth: int = 0) -> Statistic:
    """Return the statistic of a claim that a rule matches backpropagation, on networks of some depth at least."""

    def measure(evidence: StudyResults) -> Measured | None:
        """Return the gap to backprop; the threshold is ±2 points, the difference that matters, see `MARGIN`.

        It decides only where feedback alignment does not match too.
        """
        grid = evidence.grid
        if grid is None or (place := held(grid, ("bp", rule))) is None:
            return None
        if (pairs := compared(grid, ("bp", rule), place)) is None:
            return None
        blocked = pairs.at_floor("bp")
        if least_depth and not pairs.depth >= least_depth:
            few = f"the network has {pairs.depth:g} weight layers, fewer than {least_depth}, and does not count as deep"
            blocked = "the depth of the network is not known" if math.isnan(pairs.depth) else few
        doubt = fa_tells(grid, MARGIN, place)
        gap = pairs.gap(rule, "bp")
        return over_seeds(f"{rule} − bp", gap, pairs.where, facts=pairs.facts, blocked=blocked, doubt=doubt)

    return measure


def advantage(pairs: Pairs, rule: str, other: str, *, blocked: str = "") -> Measured:
    """Return how far a rule is above another one, for a claim that it is above it.

    ``blocked`` is a reason why that decides nothing here. If backprop itself is less than 2 points above the other,
    there is no room: being no better then shows nothing, while being worse still does.
    """
    gap, room = pairs.gap(rule, other), pairs.mean("bp") - pairs.mean(other)
    blocked = pairs.at_floor("bp") or blocked
    if not blocked and room < MARGIN and not intervals.of_crossed_mean(gap)[1] < 0:
        blocked = f"there is no room, because bp itself is only {points(room)} points above {other}"
    return over_seeds(f"{rule} − {other}", gap, pairs.where, facts=pairs.facts, blocked=blocked)
