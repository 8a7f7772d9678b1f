"""Claims of "Two Routes to Scalable Credit Assignment without Weight Symmetry"."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from wtdiag.diagnostics.claims.base import MARGIN, NEAR, Measured, Statistic, claim, floor, over_seeds, points
from wtdiag.diagnostics.claims.carried import RESAMPLED, transferred, widest
from wtdiag.diagnostics.claims.gaps import matches
from wtdiag.diagnostics.claims.pairs import Pairs, held, paired, planned_levels, varies
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults, chance, settings_of
from wtdiag.diagnostics.comparison.robustness import accuracies, best_accuracy

PAPER = "Kunin et al. 2020, arXiv:2003.01513"
ESTIMATING = {"sa": "Symmetric alignment", "aa": "Activation alignment", "kp": "Kolen-Pollack learning"}
DEEP = 8
"""Number of weight layers from which a network counts as deep; its error then passes seven feedback matrices on its way
down. A shallower network decides nothing about deep ones."""
WORKS = 0.95
"""Share of backprop's accuracy from which a configuration counts as working."""
NOISE = "relative_noise"
"""Noise in units of the updates themselves, which does not depend on how the rule's rates are parametrised."""
TOLERABLE = 0.10
"""Loss of accuracy from which noise is too strong for backpropagation itself."""


def _stands_noise(rule: str) -> Statistic:
    def measure(evidence: StudyResults) -> Measured | None:
        """Return the noisy rule's gap to noisy backprop; the threshold is −2 points, the margin of a match.

        The noise is the strongest that costs backprop less than `TOLERABLE`. If no rule of the grid loses even 2 points
        there, it is too weak to decide. A rule that is not near backprop without noise has little to lose, so it
        decides nothing.
        """
        grid = evidence.grid
        if grid is None or not varies(grid, NOISE) or held(grid, ("bp", rule)) is None:
            return None
        levels = [level for level in planned_levels(grid, ("bp", rule), NOISE) if level > 0]
        by_level = {level: pairs for level in levels if (pairs := _noisy(grid, rule, level)) is not None}
        if not by_level:
            return None
        lost = {level: _lost(pairs, "bp") for level, pairs in by_level.items()}
        tolerable = [level for level in by_level if not lost[level] >= TOLERABLE]
        level = max(tolerable or [min(by_level)])
        pairs = by_level[level]
        blocked, behind = pairs.at_floor("bp", rule), pairs.mean("bp") - pairs.mean(rule)
        if not blocked and behind > NEAR:
            blocked = (
                f"without noise, {rule} is {points(behind)} points below bp, and it has not learned what noise can undo"
            )
        if not blocked and not tolerable:
            blocked = f"even this weakest noise costs bp {points(lost[level])} points"
        doubt = "" if _bites(grid, level) else "no rule loses two points here, so the noise is too weak to decide"
        gap, what = pairs.gap(f"{rule} noisy", "bp noisy"), f"{rule} − bp, both with noise {level:g},"
        return over_seeds(what, gap, pairs.where, facts=pairs.facts, blocked=blocked, doubt=doubt)

    return measure


def _noisy(grid: xr.Dataset, rule: str, level: float) -> Pairs | None:
    """Pair a rule and backprop, without and with noise, at the greatest depth that has both."""
    if (place := held(grid, ("bp", rule), **{NOISE: level})) is None:
        return None
    if (clean := held(grid, ("bp", rule), **place | {NOISE: 0.0})) is None:
        return None
    arms = {
        f"{each}{mark}": {"rule": each} | at for each in ("bp", rule) for mark, at in (("", clean), (" noisy", place))
    }
    return paired(grid, arms)


def _lost(pairs: Pairs, rule: str) -> float:
    """Return the accuracy that noise costs a rule, NaN if there are no seeds."""
    return pairs.mean(rule) - pairs.mean(f"{rule} noisy")


def _bites(grid: xr.Dataset, level: float) -> bool:
    """Return whether noise costs any rule of the grid an accuracy that matters."""
    every = ((str(rule), _noisy(grid, str(rule), level)) for rule in grid["rule"].values)
    return any(pairs and _lost(pairs, rule) >= MARGIN for rule, pairs in every)


for _rule, _title in ESTIMATING.items():
    claim(
        f"{_rule}-matches-bp-deep",
        paper=PAPER,
        sentence=f"{_title}, which estimates the weights, matches backpropagation on deep networks.",
        statistic=f"test accuracy of {_rule} minus that of bp at the greatest depth: "
        f"mean over seeds of a({_rule}) − a(bp)",
        direction="within",
        threshold=MARGIN,
        reason="two points are the difference in accuracy that matters; where feedback alignment is no further away, "
        f"or the network has fewer than {DEEP} weight layers, a match shows nothing",
        needs=f"a grid with bp, fa and {_rule}",
    )(matches(_rule, DEEP))
    claim(
        f"{_rule}-stands-noise",
        paper=PAPER,
        sentence=f"{_title}, which estimates the weights, withstands noisy updates about as well as backpropagation.",
        statistic=f"test accuracy of {_rule} minus that of bp, both with noise in the updates: mean over seeds of "
        f"a({_rule}, noisy) − a(bp, noisy), at the strongest noise that costs bp less than {points(TOLERABLE)} points",
        direction="above",
        threshold=-MARGIN,
        reason="two points are the margin within which rules count as matching; a rule that is more than "
        f"{points(NEAR)} points below backpropagation without noise decides nothing",
        needs=f"a grid with bp and {_rule} whose factor relative_noise has the level 0 and others",
    )(_stands_noise(_rule))


@claim(
    "ia-gap-widens",
    paper=PAPER,
    sentence="The gap between information alignment and backpropagation widens with depth.",
    statistic="gap at the greatest depth minus gap at the least: mean over seeds of "
    "[a(bp) − a(ia)] at the greatest − [a(bp) − a(ia)] at the least",
    direction="above",
    threshold=0.0,
    reason="the claim states a direction but no amount",
    needs="a grid with bp and ia whose factor depth has several levels",
)
def ia_gap_widens(evidence: StudyResults) -> Measured | None:
    """Return the widening of the gap; the threshold is 0, because the claim states only a direction.

    Both rules must have learned at the least depth, and bp at the greatest depth too.
    """
    grid = evidence.grid
    if grid is None or not varies(grid, "depth") or (place := held(grid, ("bp", "ia"))) is None:
        return None
    rest = {name: level for name, level in place.items() if name != "depth"}
    depths = planned_levels(grid, ("bp", "ia"), "depth", **rest)
    if len(depths) < 2:
        return None
    least, most = f"at {depths[0]:g}", f"at {depths[-1]:g}"
    arms = {
        f"{rule} {at}": {"rule": rule, "depth": depth} | rest
        for rule in ("bp", "ia")
        for at, depth in ((least, depths[0]), (most, depths[-1]))
    }
    if (pairs := paired(grid, arms)) is None:
        return None
    widening = pairs.gap(f"bp {most}", f"ia {most}") - pairs.gap(f"bp {least}", f"ia {least}")
    blocked = pairs.at_floor(f"bp {least}", f"bp {most}", f"ia {least}")
    what = f"the gap between bp and ia {most} layers minus that {least}"
    return over_seeds(what, widening, pairs.where, facts=pairs.facts, blocked=blocked)


@claim(
    "wm-reg-does-not-transfer",
    paper=PAPER,
    sentence="Settings tuned for the local weight mirror on one architecture do not work on others.",
    statistic="accuracy relative to bp on the targets minus that on the source: mean over seeds and configurations of "
    "ρ(wm-reg, targets) − ρ(wm-reg, source), with ρ = a / a(bp, best configuration)",
    direction="below",
    threshold=-(1 - WORKS),
    reason="a configuration works if it reaches 95 % of backpropagation; a loss of five points turns one that did as "
    "well as backpropagation into one that does not work",
    needs="a transfer with bp and wm-reg to at least one other architecture",
    resampled=RESAMPLED,
    rests_on="transfer",
)
def wm_reg_does_not_transfer(evidence: StudyResults) -> Measured | None:
    """Return the change from source to targets; the threshold is −5 points, with which a setting ceases to work."""
    return transferred(evidence.transfers, "wm-reg")


@claim(
    "ia-transfers-better",
    paper=PAPER,
    sentence="Settings tuned for information alignment transfer better than settings tuned for the weight mirror.",
    statistic="change of relative accuracy from source to targets of ia minus that of wm-reg: mean over seeds and "
    "configurations of [ρ(ia, targets) − ρ(ia, source)] − [ρ(wm-reg, targets) − ρ(wm-reg, source)]",
    direction="above",
    threshold=0.0,
    reason="the claim states a direction but no amount",
    needs="a transfer with bp, ia and wm-reg to at least one other architecture",
    resampled=RESAMPLED,
    rests_on="transfer",
)
def ia_transfers_better(evidence: StudyResults) -> Measured | None:
    """Return the difference of the changes; the threshold is 0, because the claim states only a direction."""
    return transferred(evidence.transfers, "ia", "wm-reg")


@claim(
    "ia-more-robust",
    paper=PAPER,
    sentence="Information alignment works at more settings of its coefficients than the weight mirror.",
    statistic="share of configurations that reach 95 % of the best validation accuracy of bp: "
    "share(ia) − share(wm-reg), configurations that diverge not reaching it",
    direction="above",
    threshold=0.0,
    reason="the claim states a direction but no amount",
    needs="a sweep with bp, ia and wm-reg",
    resampled="trials",
    rests_on="sweep",
)
def ia_more_robust(evidence: StudyResults) -> Measured | None:
    """Return the difference of the shares; the threshold is 0, because the claim states only a direction.

    The trials must be a sample of the space, which those of TPE are not. Theory decides which trials are pruned, so a
    share that includes pruned trials would measure the theory and not the rules.
    """
    sweep = widest(evidence.sweeps, ("bp", "ia", "wm-reg"))
    if sweep is None:
        return None
    best, ia, wm = best_accuracy(sweep), accuracies(sweep, "ia"), accuracies(sweep, "wm-reg")
    if not len(ia) or not len(wm):
        return None
    pruned, failed = ((sweep["status"].sel(rule=["ia", "wm-reg"]) == end).sum("trial") for end in ("pruned", "failed"))
    reach = [each >= WORKS * best for each in (ia, wm)]
    low, high = intervals.of_share_difference(*reach)
    blocked = floor({"the best bp": best}, chance(sweep)) if not math.isnan(best) else "no configuration of bp finished"
    if not blocked and sweep.attrs["sampler"] not in ("random", "grid"):
        blocked = (
            f"{sweep.attrs['sampler']} draws trials where earlier ones did well, so they are not a sample of the space"
        )
    if not blocked and pruned.any():
        blocked = f"{_each(pruned)} trials were pruned by theory, before they could show whether they reach 95 %"
    if not blocked and len(set(np.concatenate(reach).tolist())) == 1:
        blocked = f"{'every' if reach[0][0] else 'no'} configuration of either rule reaches 95 %"
    settings = settings_of(sweep)
    facts = f"ia {reach[0].sum()} of {len(ia)}, wm-reg {reach[1].sum()} of {len(wm)}, best bp {points(best)} %"
    if failed.any():
        facts += f"; {_each(failed)} failed trials are left out"
    return Measured(
        "the difference ia − wm-reg in the share of configurations that reach 95 % of bp",
        float(reach[0].mean() - reach[1].mean()),
        low,
        high,
        min(len(ia), len(wm)),
        "trials",
        f"{settings.get('model', 'the network')} on {settings.get('data', 'the data')}",
        facts=facts,
        blocked=blocked,
    )


def _each(counts: xr.DataArray) -> str:
    """Return the number of trials of each rule, as text."""
    return ", ".join(f"{count} {rule}" for rule, count in zip(counts["rule"].values, counts.values, strict=True))
