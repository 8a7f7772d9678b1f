"""Claims of "Deep Learning without Weight Transport", which introduces weight mirrors and uses Kolen-Pollack.

All of them are measured at the greatest depth that a grid has for the rules compared, without noise in the updates.
"""

from __future__ import annotations

from wtdiag.diagnostics.claims.base import MARGIN, NEAR, Measured, claim, over_seeds, points
from wtdiag.diagnostics.claims.gaps import near, outperforms
from wtdiag.diagnostics.claims.pairs import compared, held
from wtdiag.diagnostics.comparison.results import StudyResults

PAPER = "Akrout et al. 2019, arXiv:1904.05391"
SIGN_RULES = ("usf", "frsf", "brsf")

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
        )(outperforms(_rule, _others))
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
    )(near(_rule))


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
