"""The grids of a study: one training for every combination of the levels of some factors."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.outcome import angles
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import ANALYSIS, CONFIG
from wtdiag.studies.engine.cell import Cell, Outcome, outcome_of
from wtdiag.studies.file.plan import GridPlan, Level, Plan, joined
from wtdiag.studies.parts.dataset import UNITS, by_example, labels, texts, write
from wtdiag.studies.parts.planned import PlannedCells
from wtdiag.trainers.config.settings import DEFAULTS, from_mapping
from wtdiag.trainers.loop.launch import stored

SAVE_SECONDS = 10.0
"""Shortest time between two writings of the results while cells are trained."""
Levels = dict[str, Level]
_MOST_CELLS = 100_000  # all of them are held in memory
_TAKEN = {*UNITS, "status", "reason", "run", "accuracy", "gap"}


class Grid(PlannedCells):
    """The cells of a study's grids.

    The dims of the results are the factors of all grids together, always including ``rule`` and ``seed``. If a grid
    does not vary a factor, its cells have the level that the settings of the grid give.

    Parameters
    ----------
    out
        Folder of the study; its runs are in ``out/cells``.
    plan
        The study.
    tuned
        By `tuning_key`, the best parameters that a search found for a method.

    Raises
    ------
    InputError
        If settings cannot be used, the level of a factor is not known in one of the grids, or two grids give one cell
        different settings.
    """

    def __init__(
        self, out: Path, plan: Plan, tuned: Mapping[tuple[Level, ...], Mapping[str, Level]] | None = None
    ) -> None:
        self.out, self.plan = out, plan
        self.tuned = dict(tuned or {})
        self.factors = _factors(plan)
        self.cells = {
            key: self._cell(levels, settings) for key, (levels, settings) in _combinations(plan, self.factors).items()
        }
        paths = [cell.path for cell in self.cells.values()]
        if len(set(paths)) < len(paths):
            raise InputError("grid: two cells would have the same folder; rename one of the levels")
        self._angles: dict[Path, dict[str, float]] = {}
        # Seeds vary slowest, so that complete replications are left if the study ends early.
        super().__init__(sorted(self.cells.values(), key=lambda cell: cell.settings.seed))
        self._next_save = time.monotonic() + SAVE_SECONDS

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Keep the outcome of a cell, and write the results from time to time."""
        super().ended(cell, outcome)
        if time.monotonic() > self._next_save:
            self.save()

    def check(self, but: Collection[str] = ()) -> None:
        """Check that no folder of a cell holds a run with other settings, apart from those named in ``but``.

        Raises
        ------
        InputError
            If a folder does.
        """
        for cell in self.cells.values():
            if (cell.path / CONFIG).exists():
                wanted = cell.settings.as_dict()
                stored(cell.path, {name: value for name, value in wanted.items() if name not in but})

    def look(self) -> None:
        """Read the outcomes of cells that an earlier start of the study trained.

        Raises
        ------
        InputError
            If their files are damaged.
        """
        for cell in self.cells.values():
            if (outcome := outcome_of(cell.path)) is not None:
                self.outcomes[cell.path] = outcome

    def save(self) -> Path:
        """Write the results so far."""
        began = time.monotonic()
        path = write(self.results(), self.out)
        ended = time.monotonic()
        self._next_save = ended + max(SAVE_SECONDS, 20 * (ended - began))
        return path

    def results(self) -> xr.Dataset:
        """Return the results, with the factors as dims; combinations that no grid holds are "absent"."""
        names, shape = list(self.factors), tuple(len(levels) for levels in self.factors.values())
        places = [{key: i for i, key in enumerate(levels)} for levels in self.factors.values()]
        numbers = {
            name: np.full(shape, math.nan)
            for name in ("test_accuracy", "test_loss", "weight_angle", "error_angle", "steps", "seconds")
        }
        status, reason, run = texts(shape, "absent"), texts(shape), texts(shape)
        of_text = {name for best in self.tuned.values() for name, value in best.items() if isinstance(value, str)}
        tuned = {
            f"tuned_{name}": texts(shape) if name in of_text else np.full(shape, math.nan)
            for name in sorted({name for best in self.tuned.values() for name in best})
        }
        outcomes = {}
        for key, cell in self.cells.items():
            at = tuple(place[level] for place, level in zip(places, key, strict=True))
            outcome = outcomes[at] = self.outcomes.get(cell.path, Outcome("pending", "not begun"))
            status[at], reason[at], run[at] = outcome.status, outcome.reason, cell.path.relative_to(self.out).as_posix()
            measured = {
                "test_accuracy": outcome.accuracy,
                "test_loss": outcome.loss,
                "steps": outcome.step,
                "seconds": outcome.seconds,
            }
            if outcome.status in ("finished", "diverged") and (cell.path / ANALYSIS).exists():
                if cell.path not in self._angles:
                    self._angles[cell.path] = angles(cell.path)
                measured |= self._angles[cell.path]
            for name, value in measured.items():
                numbers[name][at] = value
            for parameter, best in self.tuned.get(self.tuning_key(key), {}).items():
                tuned[f"tuned_{parameter}"][at] = str(best) if parameter in of_text else best
        variables = numbers | tuned | {"status": status, "reason": reason, "run": run}
        attrs = {
            "kind": "grid",
            "title": self.plan.title,
            "settings": json.dumps(self._shared()),
            "methods": json.dumps({label: joined({}, self.plan.methods[str(label)]) for label in self.factors["rule"]}),
            "reference": "bp",
        }
        coords = {name: (name, labels(list(levels))) for name, levels in self.factors.items()}
        named = {name: (names, values) for name, values in variables.items()} | by_example(outcomes, names, shape)
        return xr.Dataset(named, coords, attrs)

    def tuning_key(self, key: tuple[Level, ...]) -> tuple[Level, ...]:
        """Return the method and the levels of the factors for which it is tuned separately."""
        per = ("rule", *(self.plan.tune.per if self.plan.tune else ()))
        return tuple(level for name, level in zip(self.factors, key, strict=True) if name in per)

    def _shared(self) -> dict[str, Any]:
        """Return the settings of the file, the network and the data, as far as all cells share them."""
        named = {
            "model",
            "depth",
            "data",
            *self.plan.settings,
            *(name for grid in self.plan.grids for name in grid.settings),
        }
        settings = [cell.settings.as_dict() for cell in self.cells.values()]
        return {
            name: settings[0][name]
            for name in sorted(named)
            if settings and all(other.get(name) == settings[0].get(name) for other in settings)
        }

    def _cell(self, key: Levels, settings: dict[str, Any]) -> Cell:
        settings = joined(settings, self.tuned.get(self.tuning_key(tuple(key.values())), {}))
        name = ",".join(str(level) if factor == "rule" else f"{factor}={level}" for factor, level in key.items())
        safe = re.sub(r"[^\w.=,+-]", "_", name)
        return Cell(self.out / "cells" / safe, from_mapping(settings, f"cell {name}"), self.plan.probes)


def _names(settings: Mapping[str, Any]) -> set[str]:
    """Return the names of all settings and coefficients."""
    return {*settings, *settings.get("coefficients", {})} - {"coefficients"}


def tunings(plan: Plan) -> dict[tuple[Level, ...], dict[str, Any]]:
    """Return the levels for which methods are tuned separately, and their settings; empty without tuning.

    Raises
    ------
    InputError
        If ``per`` names something that is not a factor, or a factor sets what is to be searched.
    """
    if plan.tune is None:
        return {}
    factors = _factors(plan)
    unknown = [name for name in plan.tune.per if name not in factors or name in ("rule", "seed")]
    if unknown:
        raise InputError(
            f"tune: per: expected factors other than rule and seed, got {unknown[0]!r}; factors: {', '.join(factors)}"
        )
    varied = {name for levels in factors.values() for sets in levels.values() for name in _names(sets)}
    if clash := plan.tune.search.keys() & varied:
        raise InputError(f"tune: search: {min(clash)!r} cannot be searched, because a factor sets it")
    tunings_by_levels: dict[tuple[Level, ...], dict[str, Any]] = {}
    for levels, settings in _combinations(plan, factors, bare=True).values():
        tunings_by_levels.setdefault(tuple(levels[name] for name in factors if name in plan.tune.per), settings)
    return tunings_by_levels


def _factors(plan: Plan) -> dict[str, dict[Level, dict[str, Any]]]:
    """Return the factors of all grids, with all their levels."""
    factors: dict[str, dict[Level, dict[str, Any]]] = {"rule": {}}
    for grid in plan.grids:
        for name, levels in grid.factors.items():
            if name in _TAKEN or name.startswith("tuned_"):
                raise InputError(f"grid: factor {name!r}: a result has this name; expected another name")
            factors.setdefault(name, {}).update(levels)
    seeds = factors.pop("seed", {})
    factors["seed"] = seeds
    for grid in plan.grids:
        for name, levels in factors.items():
            if name not in grid.factors:
                level = _default(plan, grid, name)
                levels.setdefault(level, {name: level})
    return factors


def _default(plan: Plan, grid: GridPlan, name: str) -> Level:
    """Return the level of a factor in a grid that does not vary it."""
    settings = joined(plan.settings, grid.settings)
    level = settings.get(name, settings.get("coefficients", {}).get(name, DEFAULTS.get(name)))
    if not isinstance(level, Level):
        raise InputError(f"grid: factor {name!r}: one grid varies it, and another gives it no level; set it there")
    return level


def _combinations(
    plan: Plan, factors: Mapping[str, Mapping[Level, Mapping[str, Any]]], *, bare: bool = False
) -> dict[tuple[Level, ...], tuple[Levels, dict[str, Any]]]:
    """Return levels and settings of every cell by its key; ``bare`` leaves out those of the method and the seed."""
    cells: dict[tuple[Level, ...], tuple[Levels, dict[str, Any]]] = {}
    for grid in plan.grids:
        choices = {
            name: grid.factors.get(name) or {(level := _default(plan, grid, name)): {name: level}} for name in factors
        }
        for combination in _product(choices):
            levels = {name: combination[name] for name in factors}
            sets = [choices[name][level] for name, level in levels.items() if name not in ("rule", "seed")]
            method = plan.methods[str(levels["rule"])]
            if clash := set().union(*map(_names, sets)) & _names(method):
                raise InputError(f"grid: {min(clash)!r} is set by both a factor and the method {levels['rule']!r}")
            if not bare:
                sets = [*sets, method, {"seed": levels["seed"]}]
            settings = joined(plan.settings, grid.settings, *sets)
            key = tuple(levels.values())
            if cells.setdefault(key, (levels, settings))[1] != settings:
                raise InputError(f"grid: two grids differ in the settings of the cell {levels}")
    return cells


def _product(choices: Mapping[str, Collection[Level]]) -> list[Levels]:
    if (count := math.prod(map(len, choices.values()))) > _MOST_CELLS:
        raise InputError(f"grid: its factors have {count} combinations; expected at most {_MOST_CELLS}")
    combinations: list[Levels] = [{}]
    for name, levels in choices.items():
        combinations = [{**shorter, name: level} for shorter in combinations for level in levels]
    return combinations
