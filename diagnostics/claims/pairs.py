"""Evidence for claims on a grid: test accuracies of rules at chosen levels, paired by seed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.claims.base import floor, left_out, points
from wtdiag.diagnostics.comparison.results import chance, settings_of

Arm = Mapping[str, Any]
"""Levels that some runs of a grid have in common: that of ``rule``, and those of other factors."""

_NAMED_BY_DEPTH = re.compile(r"(?:resnet|wide_resnet|resnext|vgg|densenet)(\d+)(?:_.*)?")
"""Models whose names hold their number of weight layers, without shortcuts; other names may count something else."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Test accuracies at the last step, paired by seed.

    Attributes
    ----------
    accuracy : mapping of str to array
        By arm, for each seed that all arms have, averaged over the factors that no arm names.
    left_out : int
        Number of planned seeds with a run that failed, was interrupted or has not ended.
    diverged : int
        Number of runs that diverged, which answer at chance.
    where : str
        Network and data.
    depth : float
        Least number of weight layers among their networks, NaN if it is not known.
    chance : float
        Accuracy by chance, NaN if it is not known.
    """

    accuracy: Mapping[str, NDArray[np.float64]]
    left_out: int
    diverged: int
    where: str
    depth: float
    chance: float

    def mean(self, arm: str) -> float:
        """Return the mean accuracy of an arm, NaN if there are no seeds."""
        values = self.accuracy[arm]
        return float(values.mean()) if len(values) else math.nan

    def gap(self, arm: str, other: str) -> NDArray[np.float64]:
        """Return the accuracy of one arm minus that of another, by seed."""
        difference: NDArray[np.float64] = self.accuracy[arm] - self.accuracy[other]
        return difference

    @property
    def facts(self) -> str:
        """Mean accuracies of the arms, and the numbers of seeds left out and of diverged runs, as text."""
        means = [f"{arm} {points(self.mean(arm))} %" for arm in self.accuracy if len(self.accuracy[arm])]
        diverged = f"{self.diverged} diverged run{'s count' if self.diverged > 1 else ' counts'} as chance"
        return "; ".join(filter(None, (", ".join(means), left_out(self.left_out), diverged if self.diverged else "")))

    def at_floor(self, *arms: str) -> str:
        """State which of some arms has not learned, with a mean accuracy below twice chance; "" if all have."""
        return floor({arm: self.mean(arm) for arm in arms}, self.chance)


def paired(grid: xr.Dataset, arms: Mapping[str, Arm]) -> Pairs | None:
    """Pair the runs of some arms by seed; return None if no seed was planned for all of them.

    All arms must name the same factors. The accuracies are averaged over the other factors, at the levels at which all
    arms were planned. A seed counts if all its runs at these levels finished or diverged.
    """
    chosen = [grid[["test_accuracy", "status"]].sel(arm) for arm in arms.values()]
    others = [str(dim) for dim in chosen[0]["status"].dims if dim != "seed"]
    shape = len(chosen), grid.sizes["seed"], -1
    status, accuracy = (
        np.stack([each[name].transpose("seed", *others).values for each in chosen]).reshape(shape)
        for name in ("status", "test_accuracy")
    )
    planned = status != "absent"
    kept = planned.all(axis=0).any(axis=0)
    if not kept.any():
        return None
    status, accuracy, planned = status[..., kept], accuracy[..., kept], planned[..., kept]
    whole = (np.isin(status, ("finished", "diverged")) & np.isfinite(accuracy)).all(axis=(0, 2))
    named = {name: list(dict.fromkeys(arm[name] for arm in arms.values())) for name in next(iter(arms.values()))}
    levels = named | _kept_levels(grid, others, kept)
    means = accuracy[:, whole].mean(axis=2)
    return Pairs(
        dict(zip(arms, means, strict=True)),
        int((planned.any(axis=(0, 2)) & ~whole).sum()),
        int((status[:, whole] == "diverged").sum()),
        _where(grid, levels),
        _depth(grid, levels),
        chance(grid),
    )


def held(grid: xr.Dataset, rules: Iterable[str], **fixed: Any) -> dict[str, Any] | None:
    """Return the levels at which rules are compared: no noise in the updates, and the greatest depth that all have.

    Return None if one of the rules is not in the grid, or there are no such levels. Factors that the grid does not vary
    are not named; ``fixed`` gives levels to use instead.
    """
    rules = list(rules)
    if not set(rules) <= set(grid["rule"].values):
        return None
    place = {"update_noise": 0.0} if varies(grid, "update_noise") else {}
    place |= fixed
    for name in place:
        if place[name] not in planned_levels(grid, rules, name):
            return None
    if varies(grid, "depth") and "depth" not in place:
        depths = planned_levels(grid, rules, "depth", **place)
        if not depths:
            return None
        place["depth"] = depths[-1]
    return place


def compared(grid: xr.Dataset, rules: Iterable[str], place: Mapping[str, Any] | None) -> Pairs | None:
    """Pair some rules at given levels of a grid; return None if there are no such levels or a rule is missing there."""
    if place is None or (place := held(grid, rules, **place)) is None:
        return None
    return paired(grid, {rule: {"rule": rule} | place for rule in rules})


def fa_tells(grid: xr.Dataset, margin: float, place: Mapping[str, Any]) -> str:
    """State why a rule close to backprop would mean little here, namely that feedback alignment is as close.

    Return "" if it is not. On a task that any rule solves, all rules match; feedback alignment is the control that
    must not match.
    """
    pairs = compared(grid, ("bp", "fa"), place)
    if pairs is None or not len(gap := pairs.gap("bp", "fa")):
        return "feedback alignment, which would show whether this task tells rules apart, was not run beside it"
    if gap.mean() <= margin:
        return (
            "the task does not tell rules apart, because feedback alignment too is only "
            f"{points(gap.mean())} points below bp"
        )
    return ""


def varies(grid: xr.Dataset, factor: str) -> bool:
    """Return whether a grid has a factor whose levels are numbers."""
    return factor in grid["status"].dims and grid[factor].dtype.kind in "iuf"


def planned_levels(grid: xr.Dataset, rules: Sequence[str], factor: str, **place: Any) -> list[float]:
    """Return the levels of a factor at which all of some rules were planned, in ascending order."""
    there = (grid["status"].sel(rule=list(rules), **place) != "absent").all("rule")
    some = there.any([dim for dim in there.dims if dim != factor]).values
    return sorted(grid[factor].values[some].tolist())


def _kept_levels(grid: xr.Dataset, others: Sequence[str], kept: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """Return the levels of the factors that are averaged over."""
    at = kept.reshape([grid.sizes[dim] for dim in others])
    return {
        dim: grid[dim].values[at.any(axis=tuple(i for i in range(len(others)) if i != axis))].tolist()
        for axis, dim in enumerate(others)
    }


def _where(grid: xr.Dataset, levels: Mapping[str, Sequence[Any]]) -> str:
    """Describe the network, the data and the other factors of the grid."""
    settings = settings_of(grid)
    named = {name: "/".join(map(_text, each)) for name, each in levels.items() if name != "rule"}
    for name in ("model", "depth", "data"):
        if name not in named and settings.get(name) is not None:
            named[name] = _text(settings[name])
    words = [named.pop("model" if "model" in named else "network", "the network")]
    words += [f"of depth {named.pop('depth')}"] if "depth" in named else []
    words += [f"on {named.pop('data')}"] if "data" in named else []
    return " ".join(words) + "".join(f", {name} {level}" for name, level in named.items())


def _depth(grid: xr.Dataset, levels: Mapping[str, Sequence[Any]]) -> float:
    """Return the least depth among some runs, by a factor, a setting or a model's name; NaN if it is unknown."""
    settings = settings_of(grid)
    depths = levels.get("depth") or [settings.get("depth")]
    numbers = [each for each in depths if isinstance(each, int | float)]
    if not numbers:
        models = levels.get("model") or [settings.get("model")]
        numbers = [
            float(match[1]) if (match := _NAMED_BY_DEPTH.fullmatch(str(model))) else math.nan for model in models
        ]
    return float(np.min(numbers))  # numpy's minimum is NaN if any depth is unknown


def _text(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)
