"""Transfer of the settings that were found on one architecture to others."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.engine.cell import Cell, Outcome, is_done, outcome_of
from wtdiag.studies.file.architectures import check_architectures, require_trainable
from wtdiag.studies.file.plan import joined
from wtdiag.studies.parts.dataset import by_example, texts
from wtdiag.studies.parts.finished_sweep import read_finished_sweep
from wtdiag.studies.parts.folder import PartFolder
from wtdiag.studies.parts.planned import PlannedCells
from wtdiag.studies.parts.sweep import MOST_TRIALS, REFERENCE, Sweep
from wtdiag.trainers.config.settings import Settings, from_mapping

TRANSFER = "transfer.json"


class Transfer(PlannedCells):
    """The best settings of a sweep, unchanged, on other architectures and on their own.

    Each of the k best configurations of a method, by accuracy on held-out examples, is trained again on the whole
    training set of each architecture and evaluated on its test set. Seeds are paired: trainings with the same seed see
    the same data in the same order, and on the same architecture start from the same W.

    Parameters
    ----------
    out
        New folder, or that of the same transfer, which is then continued.
    sweep
        A finished `studies.parts.sweep.Sweep`, or its folder.
    architectures
        By label, the settings in which it differs from that of the sweep, which is always included.
    top
        Number of configurations of each method; `notes` names methods with fewer finished trials.
    seeds
        Seeds of the trainings.

    Attributes
    ----------
    source : str
        Label of the architecture of the sweep.
    notes : tuple of str
        A sentence for each method that has fewer than ``top`` configurations.
    cells : dict
        The cells by method, rank of the configuration, architecture and seed.

    Raises
    ------
    InputError
        If the sweep does not exist or is not finished, an architecture changes a setting that it cannot, or ``out``
        holds another transfer or something else.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        sweep: Sweep | str | os.PathLike[str],
        architectures: Mapping[str, Mapping[str, Any]],
        top: int = 5,
        seeds: Sequence[int] = (0, 1, 2),
    ) -> None:
        if not 1 <= top <= MOST_TRIALS:
            raise InputError(f"top: expected a number of configurations from 1 to {MOST_TRIALS}, got {top}")
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError(f"seeds: expected one or more different seeds, got {list(seeds)}")
        self.out, self.seeds = Path(out), tuple(seeds)
        finished = read_finished_sweep(sweep)
        self._shared, self._methods = finished.settings, finished.methods
        self.configurations = {label: finished.best(label, top) for label in finished.methods}
        self.notes = tuple(
            f"{label} has {len(best)} of {top} configurations, because no more of its trials finished"
            for label, best in self.configurations.items()
            if len(best) < top
        )
        if not any(self.configurations.values()):
            raise InputError(f"sweep: {finished.name}: none of its trials finished; there is nothing to transfer")
        self.source = check_architectures(architectures, finished.methods, finished.space)
        self.architectures: dict[str, dict[str, Any]] = {self.source: {}} | {
            label: dict(changes) for label, changes in architectures.items()
        }
        self.cells = {
            (label, rank, architecture, seed): self._cell(label, rank, architecture, seed)
            for architecture in self.architectures
            for seed in self.seeds
            for label, best in self.configurations.items()
            for rank in range(len(best))
        }
        self._folder = PartFolder(self.out, "transfer", TRANSFER)
        self._check_folder()
        super().__init__(self.cells.values())  # one architecture after another, so that its data are read once

    def sources(self) -> list[Transfer]:
        """Return the cells for `studies.engine.workers.Workers.run`; ``out`` is held until `close`.

        Raises
        ------
        InputError
            If an architecture cannot be trained, as its data are missing or its model does not suit them or the
            settings; if another process works in ``out``, or a folder in it holds a run with other settings.
        """
        wanted: dict[str, Settings] = {}
        for (label, _, architecture, _), cell in self.cells.items():
            if not is_done(cell):
                wanted.setdefault(f"{architecture}: {label}", cell.settings)
        require_trainable(wanted)
        self._folder.hold(self._plan)
        self._line_up()
        return [self]

    def close(self) -> None:
        """Release ``out`` for other processes."""
        self._folder.close()

    def results(self) -> xr.Dataset:
        """Return the results so far, in the form of `diagnostics.comparison.results`; untrained cells are "pending"."""
        dims: dict[str, list[Any]] = {
            "rule": list(self.configurations),
            "configuration": list(range(max(map(len, self.configurations.values())))),
            "architecture": list(self.architectures),
            "seed": list(self.seeds),
        }
        shape = tuple(map(len, dims.values()))
        numbers = {name: np.full(shape, math.nan) for name in ("test_accuracy", "test_loss", "steps", "seconds")}
        status, reason = texts(shape, "absent"), texts(shape)
        outcomes = {}
        for key, cell in self.cells.items():
            at = tuple(levels.index(level) for levels, level in zip(dims.values(), key, strict=True))
            outcome = self.outcomes.get(cell.path) or outcome_of(cell.path) or Outcome("pending", "not begun")
            outcomes[at] = outcome
            status[at], reason[at] = outcome.status, outcome.reason
            values = (outcome.accuracy, outcome.loss, outcome.step, outcome.seconds)
            for name, value in zip(numbers, values, strict=True):
                numbers[name][at] = value
        coords: dict[str, Any] = {
            name: np.array(levels, dtype=object if isinstance(levels[0], str) else np.int64)
            for name, levels in dims.items()
        }
        attrs = {
            "kind": "transfer",
            "title": f"Transfer from {self.source} to {'; '.join(list(self.architectures)[1:])}",
            "settings": json.dumps(self._shared),
            "source": self.source,
            "reference": REFERENCE,
        }
        variables = numbers | {"status": status, "reason": reason}
        return xr.Dataset(
            {name: (tuple(dims), values) for name, values in variables.items()}
            | by_example(outcomes, list(dims), shape)
            | self._parameters(shape[:2]),
            coords,
            attrs,
        )

    def _parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the values of each searched parameter, with NaN or an empty text for rules that lack it."""
        names = dict.fromkeys(
            name for best in self.configurations.values() for configuration in best for name in configuration
        )
        parameters = {}
        for name in names:
            values = {
                (row, rank): configuration[name]
                for row, best in enumerate(self.configurations.values())
                for rank, configuration in enumerate(best)
                if name in configuration
            }
            is_text = any(isinstance(value, str) for value in values.values())
            array = texts(shape) if is_text else np.full(shape, math.nan)
            for at, value in values.items():
                array[at] = str(value) if is_text else value
            parameters[name] = (("rule", "configuration"), array, {"long_name": name})
        return parameters

    def _cell(self, label: str, rank: int, architecture: str, seed: int) -> Cell:
        configuration, changes = self.configurations[label][rank], self.architectures[architecture]
        settings = joined(self._methods[label], configuration, changes, {"seed": seed, "holdout": 0.0})
        safe = re.sub(r"[^\w.=+-]+", "-", architecture)
        return Cell(
            self.out / "cells" / f"{label}-{rank}-{safe}-{seed}", from_mapping(settings, f"to: {architecture}: {label}")
        )

    @property
    def _plan(self) -> dict[str, Any]:
        def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in settings.items() if name not in settings_with_role("location")}

        return {
            "methods": {label: lasting(settings) for label, settings in self._methods.items()},
            "configurations": self.configurations,
            "architectures": {label: lasting(changes) for label, changes in self.architectures.items()},
            "seeds": list(self.seeds),
        }

    def _check_folder(self) -> None:
        """Check that the folder is empty or holds this transfer."""
        paths = [cell.path for cell in self.cells.values()]
        if len(set(paths)) < len(paths):
            raise InputError("to: two architectures would have the same folder; rename one")
        if (stored := self._folder.record()) is None:
            return
        wanted = json.loads(json.dumps(self._plan))
        for name in wanted:
            if stored.get(name) != wanted[name]:
                raise InputError(
                    f"out: {self.out} holds a transfer with other {name}; continue that one, or choose another folder"
                )
