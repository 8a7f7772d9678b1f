"""Evidence for claims on a grid: test accuracies of rules at chosen levels, paired by seed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.claims.base import floor, left_out, points
from wtdiag.diagnostics.comparison.results import chance, settings_of

Arm = Mapping[str, Any]
"""Levels that some runs of a grid have in common: that of ``rule``, and those of other factors."""

NOISES = ("relative_noise", "update_noise")
"""Factors that are noise in the updates."""
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
    right : mapping of str to array
        By arm, over (test example, seed), the share of the runs that had the example right; empty if some run does not
        tell. A run that diverged is right with the probability of chance.
    """

    accuracy: Mapping[str, NDArray[np.float64]]
    left_out: int
    diverged: int
    where: str
    depth: float
    chance: float
    right: Mapping[str, NDArray[np.float64]]

    @property
    def seeds(self) -> int:
        """Number of seeds that all arms have."""
        return len(next(iter(self.accuracy.values())))

    def mean(self, arm: str) -> float:
        """Return the mean accuracy of an arm, NaN if there are no seeds."""
        values = self.accuracy[arm]
        return float(values.mean()) if len(values) else math.nan

    def gap(self, arm: str, other: str) -> NDArray[np.float64]:
        """Return the accuracy of one arm minus that of another, over (test example, seed); one row if no run tells."""
        by_example = self.right or {name: values[None] for name, values in self.accuracy.items()}
        difference: NDArray[np.float64] = by_example[arm] - by_example[other]
        return difference

    @property
    def facts(self) -> str:
        """Mean accuracies of the arms, and the numbers of seeds left out and of diverged runs, as text."""
        means = [f"{arm} {points(self.mean(arm))} %" for arm in self.accuracy if len(self.accuracy[arm])]
        diverged = f"{self.diverged} diverged run{'s count' if self.diverged > 1 else ' counts'} as chance"
        examples = len(next(iter(self.right.values()), ()))
        tested = (
            f"with the sampling of {examples} test examples" if examples else "without the sampling of the test set"
        )
        notes = tested if self.seeds else "", left_out(self.left_out), diverged if self.diverged else ""
        return "; ".join(filter(None, (", ".join(means), *notes)))

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
    right: dict[str, NDArray[np.float64]] = {}
    if "right" in grid:
        flags = [grid["right"].sel(arm).transpose("seed", *others, "example").values for arm in arms.values()]
        flags_of_runs = np.stack(flags).reshape(*shape, grid.sizes["example"])[:, whole][:, :, kept]
        right = dict(zip(arms, _shares(flags_of_runs, accuracy[:, whole], status[:, whole]), strict=False))
    return Pairs(
        dict(zip(arms, means, strict=True)),
        int((planned.any(axis=(0, 2)) & ~whole).sum()),
        int((status[:, whole] == "diverged").sum()),
        _where(grid, levels),
        _depth(grid, levels),
        chance(grid),
        right,
    )


def _shares(right: NDArray[Any], accuracy: NDArray[np.float64], status: NDArray[Any]) -> Sequence[NDArray[np.float64]]:
    """Return the share of runs that had a test example right, over (example, seed) for each arm; none if not all tell.

    All are over (arm, seed, run), and ``right`` over examples too, where −1 stands for one that a run does not tell.
    """
    right = right[..., (right >= 0).any(axis=(0, 1, 2))]  # the others belong to networks with larger test sets
    told = right >= 0
    shares = np.where(told, right, accuracy[..., None])
    whole = told.all(axis=-1) | (status == "diverged")
    if not (right.size and whole.all() and np.allclose(shares.mean(axis=-1), accuracy, atol=1e-6)):
        return ()
    return list(shares.mean(axis=2).transpose(0, 2, 1))


def held(grid: xr.Dataset, rules: Iterable[str], **fixed: Any) -> dict[str, Any] | None:
    """Return the levels at which rules are compared: no noise in the updates, and the greatest depth that all have.

    Return None if one of the rules is not in the grid, or there are no such levels. Factors that the grid does not vary
    are not named; ``fixed`` gives levels to use instead.
    """
    rules = list(rules)
    if not set(rules) <= set(grid["rule"].values):
        return None
    place = {noise: 0.0 for noise in NOISES if varies(grid, noise)}
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
    if pairs is None or not pairs.seeds:
        return "feedback alignment, which would show whether this task tells rules apart, was not run beside it"
    gap = pairs.mean("bp") - pairs.mean("fa")
    if gap <= margin:
        return (
            f"the task does not tell rules apart, because feedback alignment too is only {points(gap)} points below bp"
        )
    return ""


def networks(grid: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the grid of each network by its name: of each combination of levels of factors that no claim varies.

    A single such grid, or one of factors with one level, has the name "".
    """
    compared_over = {"rule", "seed", "depth", *NOISES}
    dims = [str(dim) for dim in grid["status"].dims if dim not in compared_over]
    several = [dim for dim in dims if grid.sizes[dim] > 1]
    parts = {}
    for levels in product(*(grid[dim].values.tolist() for dim in several)):
        name = ", ".join(
            _text(level) if dim == "network" else f"{dim} {_text(level)}"
            for dim, level in zip(several, levels, strict=True)
        )
        parts[name] = grid.sel({dim: [level] for dim, level in zip(several, levels, strict=True)})
    return parts


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
