"""The search of one method of a sweep: an Optuna study whose storage several processes and machines may share."""

from __future__ import annotations

import math
import threading
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import Space, grid
from wtdiag.studies.predict.pruner import LOG_GAIN, STEP_SIZE_NUMBER, StepSizePruner, why
from wtdiag.trainers.config.settings import from_mapping

SAMPLERS = ("tpe", "random", "grid")
HEARTBEAT = 60.0
"""Seconds between two signs of life of a running trial."""
SILENCE = 600.0
"""Seconds without a sign of life until a trial of another folder counts as abandoned; clocks differ by less."""
_TAKEN_OVER = "this machine was silent for so long that another one has taken the trial over and ended it"


class Search:
    """The trials of one method, as a `studies.engine.cell.CellSource`; other processes may share its storage.

    Trials are numbered from 0 in the order in which they are created. Those numbered ``trials`` and above are never
    begun, so their number is bounded however many processes take part. The sampler of a trial is seeded by the seed of
    the sweep and the number of the trial, so random trials do not depend on the process that begins them, and are the
    same for two methods with the same space.

    Parameters
    ----------
    storage
        Result of `studies.engine.storage.open_storage`.
    label
        Label of the method, and name of the Optuna study.
    settings
        All settings of the method except those that are searched.
    space
        The ranges to search; if there is none, there is a single trial.
    folder
        Folder for the runs of this process.
    here
        Name of that folder for other processes.
    alone
        Whether the storage belongs to this folder alone, so that all its trials began here.
    """

    def __init__(
        self,
        storage: BaseStorage,
        label: str,
        settings: Mapping[str, Any],
        space: Space,
        folder: Path,
        *,
        sampler: str,
        trials: int,
        seed: int,
        prune: bool,
        here: str,
        alone: bool,
    ) -> None:
        self.label, self.space = label, space
        self.grid = grid(space, trials) if sampler == "grid" else []
        self.trials = len(self.grid) if sampler == "grid" else trials if space else 1
        self.study = optuna.create_study(
            storage=storage, study_name=label, direction="maximize", load_if_exists=True, pruner=StepSizePruner()
        )
        self._storage, self._settings, self._folder = storage, settings, folder
        self._sampler, self._seed, self._prune, self._here, self._alone = sampler, seed, prune, here, alone
        self._running: dict[Path, Trial] = {}
        self._left: list[int] = []
        self._heart: threading.Thread | None = None

    @property
    def total(self) -> int:
        """Number of trials that have not ended."""
        return self.trials - sum(trial.state.is_finished() for trial in self._numbered())

    def take_up(self) -> None:
        """Queue the trials that this folder left unfinished: those that were interrupted, or failed on a full disk."""
        running = [trial for trial in self._numbered() if trial.state == TrialState.RUNNING]
        self._left = [trial.number for trial in running if self._is_ours(trial)]

    def next(self) -> Cell | None:
        """Return the training of the next trial: first those that were left unfinished, then new ones."""
        while (number := self._claim()) is not None:
            trial = self._begin(number)
            path = self._folder / f"{self.label}-{number}"
            try:
                settings = from_mapping(joined(self._settings, trial.params), f"trial {path.name}")
            except InputError as error:  # these parameters cannot be combined
                self._end(trial, Outcome("failed", str(error)))
                continue
            self._running[path] = trial
            self._begin_to_beat()
            return Cell(path, settings, watch=self._prune)
        return None

    def reported(self, cell: Cell, state: CellState) -> str:
        """Record the stability of a trial, and return why it should be stopped if the pruner decides so."""
        trial = self._running[cell.path]
        measured = {STEP_SIZE_NUMBER: state.step_size_number, LOG_GAIN: state.log_gain}
        try:
            for name, value in measured.items():
                if math.isnan(value) and name not in trial.user_attrs:
                    continue
                trial.set_user_attr(name, None if math.isnan(value) else value)  # JSON has no NaN
                if state.step == 0:
                    trial.set_user_attr(f"initial_{name}", value)
        except UpdateFinishedTrialError:
            return _TAKEN_OVER
        return why(**measured) if trial.should_prune() else ""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Report the outcome of a trial to Optuna; a trial that was interrupted or failed is left for the next start.

        A training fails if disk or memory are full or its process is killed, which says nothing about its parameters.
        """
        trial = self._running.pop(cell.path)
        try:
            if outcome.status in ("interrupted", "failed"):
                trial.set_user_attr("status", outcome.status)
                trial.set_user_attr("reason", outcome.reason)
            else:
                self._end(trial, outcome)
        except UpdateFinishedTrialError:
            return  # it was taken over
        if outcome.status == "interrupted":
            self._left.append(trial.number)

    def best(self, k: int) -> list[dict[str, Any]]:
        """Return the parameters of the k best trials that finished; ties go to the first."""
        finished = [trial for trial in self._numbered() if status_of(trial) == "finished"]
        return [trial.params for trial in sorted(finished, key=lambda trial: -(trial.value or 0.0))[:k]]

    def all(self) -> list[FrozenTrial]:
        """Return by number all trials that were begun, and those that are still to begin."""
        trials = self.study.get_trials(deepcopy=False)
        begun = [trial.number + 1 for trial in trials if trial.state != TrialState.WAITING]
        return [trial for trial in trials if trial.number < max([self.trials, *begun])]

    def _numbered(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.number < self.trials]

    def _claim(self) -> int | None:
        """Return the number of a trial for this process to train; None if there is none."""
        if self._left:
            return self._left.pop(0)
        while True:
            known = self._numbered()
            if len(known) >= self.trials and all(trial.state != TrialState.WAITING for trial in known):
                if self._release(known):
                    continue
                return None
            number = self.study.ask().number  # the first that is waiting, or a new one
            if number < self.trials:
                return number
            # Another process created the last trial at the same time. This one waits until more are wanted.
            self._storage.set_trial_state_values(self._id(number), TrialState.WAITING)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._storage.get_study_id_from_name(self.label), number
        )

    def _is_ours(self, trial: FrozenTrial) -> bool:
        where = trial.user_attrs.get("where")
        there = (self._folder / f"{self.label}-{trial.number}").exists()
        if where is None:
            return there or self._alone
        return bool(where == self._here) or (there and self._is_abandoned(trial))  # the folder has been moved

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Return whether a trial that another folder began has no process left that could end it."""
        where = str(trial.user_attrs.get("where", ""))
        if trial.state != TrialState.RUNNING or where in ("", self._here):
            return False
        host, _, folder = where.partition(":")
        if host == self._here.partition(":")[0] and not Path(folder).parent.exists():
            return True
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - float(trial.user_attrs.get("seen", begun)) > SILENCE

    def _release(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return abandoned trials to the queue of all processes, and whether there were any."""
        abandoned = [trial for trial in trials if self._is_abandoned(trial)]
        for trial in abandoned:
            self._storage.set_trial_state_values(self._id(trial.number), TrialState.WAITING)
        return bool(abandoned)

    def _begin_to_beat(self) -> None:
        """Start to give signs of life of the running trials, for as long as this process lives."""
        if self._heart is None or not self._heart.is_alive():
            self._heart = threading.Thread(target=_beat, args=(weakref.ref(self),), daemon=True)
            self._heart.start()

    def _show_life(self) -> None:
        for trial in list(self._running.values()):
            trial.set_user_attr("seen", time.time())

    def _begin(self, number: int) -> Trial:
        """Return a trial of this process with its parameters; parameters that it has already are kept."""
        self.study.sampler = self._seeded(number)
        trial = Trial(self.study, self._id(number))
        trial.set_user_attr("seen", time.time())
        trial.set_user_attr("where", self._here)
        if "status" in trial.user_attrs:
            trial.set_user_attr("status", "running")
            trial.set_user_attr("reason", "")
        for name, searched in self.space.items():
            searched.suggest(trial, name)
        return trial

    def _seeded(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        random = optuna.samplers.RandomSampler(seed=seed)
        if self._sampler == "random":
            return random
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            # The grid sampler of Optuna may give two processes the same point.
            return optuna.samplers.PartialFixedSampler(self.grid[number], random)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        known = outcome.status in ("finished", "diverged") and math.isfinite(outcome.accuracy)
        status = outcome.status if known or outcome.status == "pruned" else "failed"
        reason = outcome.reason or ("no validation accuracy was logged" if status != outcome.status else "")
        facts = {"status": status, "reason": reason, "steps": outcome.step, "seconds": outcome.seconds}
        for name, value in facts.items():
            if value != "" and value == value:  # neither empty nor NaN
                trial.set_user_attr(name, value)
        state = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}.get(status, TrialState.COMPLETE)
        self.study.tell(trial, outcome.accuracy if known else None, state)


def _beat(search: weakref.ref[Search]) -> None:
    while True:
        time.sleep(HEARTBEAT)
        alive = search()
        if alive is None:
            return
        with suppress(Exception):  # the trial has just ended, or the storage cannot be reached for a moment
            alive._show_life()
        del alive


def status_of(trial: FrozenTrial) -> str:
    """Return the status of a trial: one of `studies.engine.cell.Outcome`, "running" or "pending"."""
    recorded = str(trial.user_attrs.get("status", "running"))
    match trial.state:
        case TrialState.COMPLETE:
            return recorded
        case TrialState.RUNNING:
            return recorded if recorded in ("interrupted", "failed") else "running"
        case TrialState.PRUNED:
            return "pruned"
        case TrialState.FAIL:
            return "failed"
    return "pending"
