"""A finished sweep, read from the sweep itself or from its folder."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.results import RESULTS, read_results
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.probes.records.schema import read_json
from wtdiag.studies.parts.sweep import SWEEP, Sweep
from wtdiag.trainers.config.settings import Settings, from_mapping

_UNFINISHED = ("pending", "running", "interrupted")


@dataclass(frozen=True)
class FinishedSweep:
    """Settings and trials of a finished sweep.

    Attributes
    ----------
    name : str
        Path of its folder.
    settings : dict
        The settings that its trials share, except the seed and the held-out share, which belong to the search.
    methods : dict
        By the label of a method, all its settings.
    space : dict
        By the label of a method, the ranges that were searched, as plain data.
    trials : Dataset
        All trials.
    """

    name: str
    settings: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    space: dict[str, dict[str, dict[str, Any]]]
    trials: xr.Dataset

    def best(self, label: str, k: int) -> list[dict[str, Any]]:
        """Return the parameters of the k finished trials with the best validation accuracy; ties go to the first."""
        trials = self.trials.sel(rule=label)
        accuracy = trials["validation_accuracy"].where(trials["status"] == "finished").values
        order = [trial for trial in np.argsort(-accuracy, kind="stable") if math.isfinite(accuracy[trial])]
        return [
            {name: _typed(name, trials[name][trial].item(), searched) for name, searched in self.space[label].items()}
            for trial in order[:k]
        ]


def read_finished_sweep(sweep: Sweep | str | os.PathLike[str]) -> FinishedSweep:
    """Read a finished sweep, given itself or its folder.

    Raises
    ------
    InputError
        If there is no sweep, it is not finished, or its files do not fit together.
    """
    if isinstance(sweep, Sweep):
        name, trials = str(sweep.out), sweep.results()
        methods: dict[str, Any] = sweep.methods
        space: dict[str, Any] = {
            label: {name: searched.as_dict() for name, searched in own.items()} for label, own in sweep.space.items()
        }
    else:
        folder = Path(sweep)
        name = str(folder)
        if not (folder / SWEEP).is_file():
            raise InputError(f"sweep: {folder} is not the folder of a sweep; expected one that wtdiag sweep wrote")
        methods, space = _read_methods(folder / SWEEP)
        if not (folder / RESULTS).is_file():
            raise InputError(f"sweep: {folder} is not finished; continue it first")
        trials = read_results(folder / RESULTS)
    if trials.attrs["kind"] != "sweep" or set(trials["rule"].values) != methods.keys():
        raise InputError(f"sweep: {name}: {RESULTS} does not belong to the sweep in {SWEEP}")
    left = int(trials["status"].isin(_UNFINISHED).sum())
    if left:
        raise InputError(f"sweep: {name} is not finished, {left} of its trials have not ended; continue it first")
    protocol = settings_with_role("protocol")  # the seed of the search and the share that it holds out
    shared = {key: value for key, value in json.loads(trials.attrs["settings"]).items() if key not in protocol}
    full = {label: from_mapping(settings, f"{name}: {label}").as_dict() for label, settings in methods.items()}
    for label, own in space.items():
        for parameter in own:
            if parameter not in trials:
                raise InputError(f"sweep: {name}: {RESULTS} lacks {parameter!r}, which was searched for {label}")
    return FinishedSweep(name, shared, full, space, trials)


def _read_methods(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read settings and searched parameters of each method from a sweep.json, whose content is not trusted."""
    match read_json(path):
        case {"methods": dict(methods)} if all(
            isinstance(method, dict)
            and isinstance(method.get("settings"), dict)
            and isinstance(method.get("space"), dict)
            for method in methods.values()
        ) and all(isinstance(searched, dict) for method in methods.values() for searched in method["space"].values()):
            return tuple({label: method[part] for label, method in methods.items()} for part in ("settings", "space"))  # type: ignore[return-value]
    raise InputError(f"{path}: expected the settings and the space of each method")


def _typed(name: str, value: Any, given: Mapping[str, Any]) -> Any:
    """Return the value of a parameter as it was tried; the file of results holds only numbers and texts."""
    for choice in given.get("choices") or ():
        if value in (choice, str(choice)):
            return choice
    whole = {field.name for field in dataclasses.fields(Settings) if str(field.type).startswith("int")}
    return int(value) if name in whole else value
