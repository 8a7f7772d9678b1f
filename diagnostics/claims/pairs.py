"""What claims are measured on: test accuracies of a grid paired by seed, and configurations carried over."""

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
"""What some runs of a grid have in common: the level of ``rule``, and of other factors."""

_NAMED_BY_DEPTH = re.compile(r"(?:resnet|wide_resnet|resnext|vgg|densenet)(\d+)(?:_.*)?")
"""Models whose number is that of their weight layers, shortcuts not counted; that of others is of something else."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Test accuracies at the last step, paired by seed.

    Attributes
    ----------
    accuracy : mapping of str to array
        By arm, of each seed that all arms have, averaged over the factors that no arm names.
    left_out : int
        Seeds that were planned and have a run that failed, was interrupted or has not ended.
    diverged : int
        Runs that diverged, which answer at chance.
    where : str
        Network and data.
    depth : float
        Least number of weight layers of their networks, NaN if not known.
    chance : float
        Accuracy by chance, NaN if not known.
    """

    accuracy: Mapping[str, NDArray[np.float64]]
    left_out: int
    diverged: int
    where: str
    depth: float
    chance: float

    def mean(self, arm: str) -> float:
        """Mean accuracy of an arm, NaN if there are no seeds."""
        values = self.accuracy[arm]
        return float(values.mean()) if len(values) else math.nan

    def gap(self, arm: str, other: str) -> NDArray[np.float64]:
        """Accuracy of one arm less that of another, by seed."""
        difference: NDArray[np.float64] = self.accuracy[arm] - self.accuracy[other]
        return difference

    @property
    def facts(self) -> str:
        """Means of the arms, and what was left out or diverged."""
        told = [f"{arm} {points(self.mean(arm))} %" for arm in self.accuracy if len(self.accuracy[arm])]
        diverged = f"{self.diverged} diverged run{'s count' if self.diverged > 1 else ' counts'} as chance"
        return "; ".join(filter(None, (", ".join(told), left_out(self.left_out), diverged if self.diverged else "")))

    def at_floor(self, *arms: str) -> str:
        """Say which of some arms has not learned: its mean accuracy is below twice chance; "" if all have."""
        return floor({arm: self.mean(arm) for arm in arms}, self.chance)


def paired(grid: xr.Dataset, arms: Mapping[str, Arm]) -> Pairs | None:
    """Pair the runs of some arms by seed; None where no seed was planned for all of them.

    Factors that no arm names are averaged over, at those of their levels at which all arms were planned; all arms must
    name the same factors. A seed counts if all its runs there finished or diverged.
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
    """Return where rules are compared: without noise in the updates, at the greatest depth that all were planned for.

    None where one of the rules is not in the grid, or there is no such place. A factor that the grid does not vary is
    not named; ``fixed`` names levels to hold instead.
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
    """Pair some rules at one place in a grid; None where there is no such place or a rule is not there."""
    if place is None or (place := held(grid, rules, **place)) is None:
        return None
    return paired(grid, {rule: {"rule": rule} | place for rule in rules})


def fa_tells(grid: xr.Dataset, margin: float, place: Mapping[str, Any]) -> str:
    """Say why a rule close to backprop would mean little here: feedback alignment is as close; "" if it is not.

    On a task that any rule solves, all rules match. Feedback alignment is the control that must not.
    """
    pairs = compared(grid, ("bp", "fa"), place)
    if pairs is None or not len(gap := pairs.gap("bp", "fa")):
        return "no feedback alignment beside it shows that this task tells rules apart"
    if gap.mean() <= margin:
        return (
            f"the task does not tell rules apart: feedback alignment too is only {points(gap.mean())} points below bp"
        )
    return ""


def varies(grid: xr.Dataset, factor: str) -> bool:
    """Whether a grid has a factor whose levels are numbers."""
    return factor in grid["status"].dims and grid[factor].dtype.kind in "iuf"


def planned_levels(grid: xr.Dataset, rules: Sequence[str], factor: str, **place: Any) -> list[float]:
    """Return the levels of a factor, from least to greatest, at which all of some rules were planned."""
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
    """Name network and data, and what else the grid varied."""
    settings = settings_of(grid)
    told = {name: "/".join(map(_text, each)) for name, each in levels.items() if name != "rule"}
    for name in ("model", "depth", "data"):
        if name not in told and settings.get(name) is not None:
            told[name] = _text(settings[name])
    words = [told.pop("model" if "model" in told else "network", "the network")]
    words += [f"of depth {told.pop('depth')}"] if "depth" in told else []
    words += [f"on {told.pop('data')}"] if "data" in told else []
    return " ".join(words) + "".join(f", {name} {level}" for name, level in told.items())


def _depth(grid: xr.Dataset, levels: Mapping[str, Sequence[Any]]) -> float:
    """Return the least depth among some runs: as a factor or a setting says, or else a model's name; NaN if unknown."""
    settings = settings_of(grid)
    depths = levels.get("depth") or [settings.get("depth")]
    numbers = [each for each in depths if isinstance(each, int | float)]
    if not numbers:
        models = levels.get("model") or [settings.get("model")]
        numbers = [
            float(found[1]) if (found := _NAMED_BY_DEPTH.fullmatch(str(model))) else math.nan for model in models
        ]
    return float(np.min(numbers))  # of numpy: one unknown depth makes the least unknown


def _text(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)
