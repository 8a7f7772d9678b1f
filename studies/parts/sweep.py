"""Search over learning rates and coefficients, with the same budget for several methods on any number of machines."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr
from optuna.storages import BaseStorage

from wtdiag.probes.errors import InputError, check_one_of, check_path
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.engine.storage import open_storage, shown_url, sqlite_url
from wtdiag.studies.file.methods import searched
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import Space
from wtdiag.studies.parts.folder import PartFolder
from wtdiag.studies.parts.search import SAMPLERS, Search
from wtdiag.studies.parts.trials import dataset
from wtdiag.trainers.config.settings import DEFAULTS, from_mapping

SWEEP = "sweep.json"
REFERENCE = "bp"
HOLDOUT = 0.2
MOST_TRIALS = 100_000
"""Largest number of trials of a method, as all of them are held in memory."""
MAP_POINTS = 25
"""Number of points along each axis of a predicted map."""
_MAY_DIFFER = ("trials", "map", *settings_with_role("location"))
"""Settings that a later start of the same sweep may change: those of how much is done, and where."""


class Sweep:
    """A search for settings of several methods, with the same budget for each.

    Every trial is a training with some of the training examples held out; its value is the accuracy on these at the
    last step. A trial that diverged answers at chance, and the sampler learns from it; a trial that the pruner stopped
    (`studies.predict.pruner.StepSizePruner`) has no value. If a sweep is started again, it continues: trials that were
    interrupted in this folder, or failed for a reason like a full disk, are resumed.

    Parameters
    ----------
    out
        Folder of the sweep; one process at a time works in it.
    methods
        By label, the settings of a method; ``bp``, the reference, is always included.
    settings
        Settings that all trials share. By default ``holdout`` is 0.2, and the seed of the trainings is ``seed``.
    space
        Ranges to search; each method is searched over the parameters that its rule has.
    sampler
        "tpe", "random" or "grid", which tries at most ``trials`` evenly spread points.
    trials
        Number of trials of each method, over all processes that share the storage.
    seed
        Seed of the sampler. With one job results are reproducible; those of a random search or a grid are so with any
        number of jobs.
    storage
        URL for `studies.engine.storage.open_storage`; default: an SQLite file in ``out``.
    prune
        Whether to stop trials that theory predicts to be unstable (S > 1) or to have an exploding gain.
    map
        Two searched parameters; `results` predicts the boundary of stability in their plane.

    Raises
    ------
    InputError
        If an argument cannot be used, or ``out`` holds another sweep or something else.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        methods: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        space: Space,
        sampler: str = "tpe",
        trials: int = 30,
        seed: int = 0,
        storage: str | None = None,
        prune: bool = True,
        map: tuple[str, str] | None = None,  # noqa: A002  (the name in study files and on the command line)
    ) -> None:
        check_path("out", out)
        check_one_of("sampler", sampler, SAMPLERS)
        if not 1 <= trials <= MOST_TRIALS:
            raise InputError(f"trials: expected a number from 1 to {MOST_TRIALS}, got {trials}")
        self.out = Path(out)
        self.settings = {"holdout": HOLDOUT, "seed": seed, **settings}
        self.methods = {
            label: joined(self.settings, method)
            for label, method in ({REFERENCE: {"rule": REFERENCE}} | dict(methods)).items()
        }
        for label, method in self.methods.items():
            if not re.fullmatch(r"\w[\w.+-]*", label):
                raise InputError(f"methods: expected labels that can name a folder, got {label!r}")
            if not method["holdout"]:
                raise InputError("holdout: expected a share above 0, because a search must not see the test set; got 0")
        if not space:
            raise InputError("search: expected at least one parameter with its range, got none")
        self.space = searched(self.methods, space)
        self.sampler, self.trials, self.seed, self.prune, self.map = sampler, trials, seed, prune, map
        if storage is not None:
            shown_url(storage)  # refuses anything that is not a URL
        self._url = storage or sqlite_url(self.out / "trials.db")
        self._alone = storage is None
        self._folder = PartFolder(
            self.out, "sweep", SWEEP, "; to share a search, give each process its own out and all the same storage"
        )
        self._ranges = {name: next(own[name] for own in self.space.values() if name in own) for name in space}
        self._check_map()
        if (stored := self._folder.record()) is not None:
            _check_same(f"out: {self.out}", stored, self._plan)

    def sources(self) -> list[Search]:
        """Return the trials of each method for `studies.engine.workers.Workers.run`; ``out`` is held until `close`.

        Raises
        ------
        InputError
            If another process works in ``out``, or the storage cannot be used or holds another sweep.
        """
        if not self._alone:
            _ = self._searches  # before the folder is created, so that bad input leaves none behind
        if not self._folder.held:
            self._folder.hold(self._plan)
            for search in self._searches:
                search.take_up()
        return self._searches

    def close(self) -> None:
        """Release ``out`` for other processes; the end of this one does so too."""
        self._folder.close()

    def best(self, rule: str, k: int = 1) -> list[dict[str, Any]]:
        """Return the parameters of the k best finished trials of a method, the best first.

        Raises
        ------
        InputError
            If there is no such method, or if none of its trials finished.
        """
        check_one_of("rule", rule, self.methods)
        best = next(search for search in self._searches if search.label == rule).best(k)
        if not best:
            raise InputError(f"{self.out}: no trial of {rule} finished; expected at least one")
        return best

    def results(self) -> xr.Dataset:
        """Return all trials in the storage, in the form of `diagnostics.comparison.results`."""
        trials = dataset(self._searches, self._ranges).assign_attrs(self._attrs())
        return trials if self.map is None else trials.assign(self._predicted(self.map))

    @cached_property
    def _searches(self) -> list[Search]:
        folder = self.out / "trials"
        here = f"{socket.gethostname()}:{folder.resolve()}"
        searches = []
        for label, settings in self.methods.items():
            search = Search(
                self._storage,
                label,
                settings,
                self.space[label],
                folder,
                sampler=self.sampler,
                trials=self.trials,
                seed=self.seed,
                prune=self.prune,
                here=here,
                alone=self._alone,
            )
            wanted = self._terms(label)
            stored = search.study.user_attrs.get("sweep")
            if stored is None:
                search.study.set_user_attr("sweep", wanted)
            else:
                _check_same(f"storage: {shown_url(self._url)}: {label}", stored, wanted)
            searches.append(search)
        return searches

    @cached_property
    def _storage(self) -> BaseStorage:
        if self._alone:
            self.out.mkdir(parents=True, exist_ok=True)
        return open_storage(self._url)

    def _terms(self, label: str) -> dict[str, Any]:
        """Return the terms on which all processes that share the trials of a method must agree."""
        terms = {
            "settings": from_mapping(self.methods[label], label).as_dict(),
            "space": {name: given.as_dict() for name, given in self.space[label].items()},
            "sampler": self.sampler,
            "seed": self.seed,
            "prune": self.prune,
        }
        return terms | ({"points": self.trials} if self.sampler == "grid" else {})

    @property
    def _plan(self) -> dict[str, Any]:
        return {
            "methods": {label: self._terms(label) for label in self.methods},
            "storage": None if self._alone else shown_url(self._url),
            "trials": self.trials,
            "map": list(self.map) if self.map else None,
        }

    def _attrs(self) -> dict[str, Any]:
        attrs = {
            "kind": "sweep",
            "title": f"Sweep of {', '.join(self.methods)} over {', '.join(self._ranges)}",
            "settings": json.dumps(self.settings),
            "space": json.dumps({name: given.as_dict() for name, given in self._ranges.items()}),
            "sampler": self.sampler,
            "trials": self.trials,
            "reference": REFERENCE,
        }
        if self.map is None:
            return attrs
        middles = {label: self._middle(label, self.map) for label in self._mapped(self.map)}
        return attrs | {"map": json.dumps(list(self.map)), "map_at": json.dumps(middles)}

    def _check_map(self) -> None:
        if self.map is None:
            return
        for name in self.map:
            check_one_of("map", name, self._ranges)
            if self._ranges[name].choices:
                raise InputError(f"map: expected parameters with a range, but {name} has choices")
        if self.map[0] == self.map[1]:
            raise InputError(f"map: expected two parameters, got {self.map[0]} twice")
        if not self._mapped(self.map):
            raise InputError(f"map: no rule has both {self.map[0]} and {self.map[1]}")

    def _mapped(self, names: tuple[str, str]) -> list[str]:
        return [label for label, own in self.space.items() if set(names) <= set(own)]

    def _middle(self, label: str, names: tuple[str, str]) -> dict[str, Any]:
        """Return the values that the other parameters of a method have on the map."""
        return {name: given.middle for name, given in self.space[label].items() if name not in names}

    def _predicted(self, names: tuple[str, str]) -> xr.Dataset:
        """Predict stability in the plane of two parameters, with the others mid-range; NaN for rules that lack one."""
        from wtdiag.studies.predict.boundary import predict  # imports torch

        x, y = (list[Any](self._ranges[name].points(MAP_POINTS)) for name in names)
        maps = {}
        for label in self._mapped(names):
            settings = from_mapping(joined(self.methods[label], self._middle(label, names)), f"map of {label}")
            maps[label] = predict(settings, names, (x, y))
        both = xr.concat(list(maps.values()), xr.DataArray(list(maps), dims="rule", name="rule"))
        return both.reindex(rule=list(self.methods)).rename({name: f"predicted_{name}" for name in both.data_vars})


def _check_same(where: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a stored sweep is the one that is wanted."""
    theirs, ours = (_flat(json.loads(json.dumps(terms))) for terms in (stored, wanted))
    for name in ours.keys() - theirs.keys():
        if "settings." in name and (setting := name.rpartition(".")[2]) in DEFAULTS:  # it came with a later version
            theirs[name] = DEFAULTS[setting]
    for name in dict.fromkeys([*ours, *theirs]):
        if name.rpartition(".")[2] in _MAY_DIFFER or theirs.get(name) == ours.get(name):
            continue
        was, wanted_now = (f"{terms[name]!r}" if name in terms else "none" for terms in (theirs, ours))
        raise InputError(
            f"{where} holds a sweep with {name} = {was}, not {wanted_now}; continue that one, or start another"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flat(branch, f"{prefix}.{key}" if prefix else key).items()
    }
