"""Evidence for claims on transfer: configurations that are carried from one architecture to others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.claims.base import Measured, floor, left_out, points
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import chance, settings_of
from wtdiag.diagnostics.comparison.robustness import relative

LEAST = 5
"""Fewest configurations of a rule that decide anything, because configurations differ more than seeds do."""
RESAMPLED = "configurations, seeds and test examples but not the search that found them"


@dataclass(frozen=True, eq=False)
class Carried:
    """Changes in the accuracy of some rules when configurations move to other architectures, paired by seed.

    Attributes
    ----------
    change : mapping of str to array
        By rule, for each of its configurations and each seed that all of them have: the accuracy relative to backprop,
        averaged over the targets, minus that on the source.
    where : str
        Architectures and data.
    accuracy : mapping of str to float
        Mean accuracy of backprop on each architecture, and of each rule on the source.
    left_out : int
        Number of seeds with a run that failed, was interrupted or has not ended.
    chance : float
        Accuracy by chance, NaN if it is not known.
    examples : mapping of str to array
        By rule, the influence of each test example on its mean change; empty if some run does not tell what it had
        right.
    """

    change: Mapping[str, NDArray[np.float64]]
    where: str
    accuracy: Mapping[str, float]
    left_out: int
    chance: float
    examples: Mapping[str, NDArray[np.float64]]

    @property
    def facts(self) -> str:
        """Mean accuracies, and the seeds left out, as text."""
        means = ", ".join(f"{name} {points(value)} %" for name, value in self.accuracy.items())
        changes = "by configuration "
        changes += ", ".join(
            f"{rule} {'/'.join(points(each) for each in change.mean(axis=1))}"
            for rule, change in self.change.items()
            if change.size
        )
        count = len(next(iter(self.examples.values()), ()))
        tested = f"with the sampling of {count} test examples" if count else "without the sampling of the test set"
        return "; ".join(
            filter(None, (changes, means, tested, left_out(self.left_out)) if means else (left_out(self.left_out),))
        )

    @property
    def blocked(self) -> str:
        """Reason why the statistic decides nothing: too few configurations, or an arm that has not learned."""
        few = [rule for rule, change in self.change.items() if len(change) < LEAST]
        if few:
            return f"fewer than {LEAST} configurations of {' and '.join(few)} decide nothing"
        return floor(self.accuracy, self.chance)


def transferred(transfers: Mapping[str, xr.Dataset], rule: str, other: str | None = None) -> Measured | None:
    """Measure the change in a rule's accuracy from source to targets, or its difference to another rule's change.

    The interval is over configurations and seeds, because the greatest differences are those between configurations.
    """
    rules = [rule] if other is None else [rule, other]
    if (moved := carry(transfers, rules)) is None:
        return None
    what = f"the change in relative accuracy of {rule} from source to targets"
    what += f" minus that of {other}" if other is not None else ""
    change, less = moved.change[rule], None if other is None else moved.change[other]
    value = math.nan
    if change.size:
        value = float(change.mean() - (0 if less is None else less.mean()))
    influence = moved.examples.get(rule, np.zeros(2)) - (0 if other is None else moved.examples.get(other, np.zeros(2)))
    low, high = intervals.of_crossed_mean(change, less, variance=influence.var(ddof=1) / len(influence))
    return Measured(
        what, value, low, high, change.shape[1], "seeds", moved.where, facts=moved.facts, blocked=moved.blocked
    )


def carry(transfers: Mapping[str, xr.Dataset], rules: Sequence[str]) -> Carried | None:
    """Measure the largest transfer of some rules; return None if there is none to another architecture."""
    transfer = widest(transfers, ("bp", *rules))
    if transfer is None or transfer.sizes["architecture"] < 2 or 0 not in transfer["configuration"].values:
        return None
    source = transfer.attrs["source"]
    targets = [str(label) for label in transfer["architecture"].values if label != source]
    ratio = relative(transfer)["relative"]
    changes, own = {}, {}
    for rule in rules:
        planned = (transfer["status"].sel(rule=rule) != "absent").any(["architecture", "seed"]).values
        if not planned.any():
            return None
        kept = ratio.sel(rule=rule).isel(configuration=planned).transpose("configuration", ...)
        changes[rule] = (
            kept.sel(architecture=targets).mean("architecture", skipna=False) - kept.sel(architecture=source)
        ).values
        own[f"{rule} on {source}"] = (
            transfer["test_accuracy"].sel(rule=rule, architecture=source).isel(configuration=planned)
        )
    whole = np.isfinite(np.concatenate(list(changes.values()))).all(axis=0)
    bp = transfer["test_accuracy"].sel(rule="bp", configuration=0)
    arms = {f"bp on {label}": bp.sel(architecture=label) for label in (source, *targets)} | own
    return Carried(
        {rule: change[:, whole] for rule, change in changes.items()},
        f"{source}, the source, and {', '.join(targets)} on {settings_of(transfer).get('data', 'the same data')}",
        {name: float(values.isel(seed=whole).mean()) for name, values in arms.items()} if whole.any() else {},
        int((~whole).sum()),
        chance(transfer),
        _influences(transfer, rules, targets, whole),
    )


def _influences(
    transfer: xr.Dataset, rules: Sequence[str], targets: Sequence[str], whole: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    r"""Return the influence of each test example on the mean change of each rule, {} if some run does not tell.

    An accuracy relative to backprop, :math:`\rho = a / b`, changes by :math:`(c - \rho d) / b` with the weight of an
    example, where c and d say whether the rule and backprop had it right. A run that diverged has it right by chance.
    """
    if "right" not in transfer or not whole.any():
        return {}
    kept = transfer[["right", "test_accuracy", "status"]].isel(seed=whole)
    kept = kept.transpose("rule", "configuration", "architecture", "seed", "example")
    told = kept["right"] >= 0
    share = kept["right"].where(told, kept["test_accuracy"])
    whole_runs = told.all("example") | (kept["status"].isin(["diverged", "absent"]))
    bp = {"rule": "bp", "configuration": 0}
    if not whole_runs.sel(rule=["bp", *rules]).all():
        return {}
    accuracy, reference = kept["test_accuracy"], kept["test_accuracy"].sel(bp, drop=True)
    influence = (share - accuracy / reference * share.sel(bp, drop=True)) / reference
    change = influence.sel(architecture=list(targets)).mean("architecture") - influence.sel(
        architecture=transfer.attrs["source"]
    )
    planned = (transfer["status"] != "absent").any(["architecture", "seed"])
    return {
        rule: change.sel(rule=rule)
        .isel(configuration=planned.sel(rule=rule).values)
        .mean(["configuration", "seed"])
        .values
        for rule in rules
    }


def widest(results: Mapping[str, xr.Dataset], rules: Iterable[str]) -> xr.Dataset | None:
    """Return the largest of the results that hold all of some rules."""
    have = [each for each in results.values() if set(rules) <= set(each["rule"].values)]
    return max(have, key=lambda each: each["status"].size, default=None)
