"""Claims of "Deep Learning without Weight Transport", which introduces weight mirrors and uses Kolen-Pollack.

All of them are measured at the greatest depth that a grid has for the rules compared, without noise in the updates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wtdiag.diagnostics.claims.base import MARGIN, NEAR, Measured, Statistic, claim, over_seeds, points
from wtdiag.diagnostics.claims.pairs import compared, fa_tells, held
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults

PAPER = "Akrout et al. 2019, arXiv:1904.05391"
SIGN_RULES = ("usf", "frsf", "brsf")


def _outperforms(rule: str, others: Sequence[str]) -> Statistic:
    def measure(evidence: StudyResults) -> Measured | None:
        """Return the rule's advantage; the threshold is 2 points, so that no rule both matches and outperforms another.

        Among several rules to outperform, the one with the highest mean counts. If backprop itself is less than 2
        points above that one, there is no room: being no better then shows nothing, while being worse still does.
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
        pairs = present[other]
        gap, room, blocked = pairs.gap(rule, other), pairs.mean("bp") - pairs.mean(other), pairs.at_floor("bp")
        if not blocked and room < MARGIN and not intervals.of_crossed_mean(gap)[1] < 0:
            blocked = f"there is no room, because bp itself is only {points(room)} points above {other}"
        return over_seeds(f"{rule} − {other}", gap, pairs.where, facts=pairs.facts, blocked=blocked)

    return measure


def _near(rule: str) -> Statistic:
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


for _rule, _title in (("wm", "Weight mirrors"), ("kp", "Kolen-Pollack learning")):
    for _slug, _others, _name in (("fa", ("fa",), "feedback alignment"), ("ss", SIGN_RULES, "sign symmetry")):
        claim(
            f"{_rule}-over-{_slug}",
            paper=PAPER,
            sentence=f"{_title} reach{'es' * (_rule == 'kp')} a higher accuracy than {_name}.",
            statistic=f"test accuracy of {_rule} minus that of {'/'.join(_others)}"
            f"{', whichever has the highest mean' * (len(_others) > 1)}: mean over seeds of a({_rule}) − a({_slug})",
            direction="above",
            threshold=MARGIN,
            reason="two points are the margin within which rules count as matching, so no rule both matches and "
            "outperforms another",
            needs=f"a grid with bp, {_rule} and {' or '.join(_others)}",
        )(_outperforms(_rule, _others))
    claim(
        f"{_rule}-near-bp",
        paper=PAPER,
        sentence=f"{_title} come{'s' * (_rule == 'kp')} near backpropagation.",
        statistic=f"test accuracy of {_rule} minus that of bp: mean over seeds of a({_rule}) − a(bp)",
        direction="above",
        threshold=-NEAR,
        reason="in the authors' own runs on CIFAR-10 with one hidden layer, feedback alignment, which is not near, is "
        "5.2 points below; where feedback alignment itself is within 5 points, being near shows nothing",
        needs=f"a grid with bp, fa and {_rule}",
    )(_near(_rule))


@claim(
    "fa-behind-bp",
    paper=PAPER,
    sentence="Feedback alignment falls behind backpropagation.",
    statistic="test accuracy of fa minus that of bp: mean over seeds of a(fa) − a(bp)",
    direction="below",
    threshold=-MARGIN,
    reason="two points are the margin within which rules count as matching",
    needs="a grid with bp and fa",
)
def fa_behind_bp(evidence: StudyResults) -> Measured | None:
    """Return the gap to backprop; the threshold is −2 points, the margin of rules that match.

    If feedback alignment is above 98 %, there is no room for such a difference.
    """
    grid = evidence.grid
    if grid is None or (pairs := compared(grid, ("bp", "fa"), held(grid, ("bp", "fa")))) is None:
        return None
    blocked = pairs.at_floor("bp")
    if not blocked and pairs.mean("fa") > 1 - MARGIN:
        blocked = f"fa reaches more than {points(1 - MARGIN)} %, and nothing can be two points above that"
    return over_seeds("fa − bp", pairs.gap("fa", "bp"), pairs.where, facts=pairs.facts, blocked=blocked)
