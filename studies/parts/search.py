"""One method's share of a sweep: an Optuna study in a storage that several processes and machines may share."""

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
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import Space, grid
from wtdiag.studies.predict.pruner import LOG_GAIN, STEP_SIZE_NUMBER, StepSizePruner, why
from wtdiag.trainers.config.settings import from_mapping

SAMPLERS = ("tpe", "random", "grid")
HEARTBEAT = 60.0
"""Seconds between two signs of life of a trial in flight."""
SILENCE = 600.0
"""Seconds without one after which a trial that another folder began counts as abandoned; clocks differ by less."""


class Search:
    """The trials of one method: a `studies.engine.pool.CellSource`, one of many on any machines that share the storage.

    Trials are numbered from 0 in the order in which they are made; those numbered ``trials`` and above are never begun,
    so that however many processes take part, there are no more. The sampler of a trial is seeded by the sweep's seed
    and its number: random trials are the same whoever begins them, and the same for two methods with one space.

    Parameters
    ----------
    storage
        As `studies.engine.storage.open_storage` gives it.
    label
        Of the method, and name of the Optuna study.
    settings
        All settings of the method but the searched.
    space
        What is searched; if it is empty there is a single trial.
    folder
        Where the runs of this process go.
    here
        Names that folder to others.
    alone
        Whether the storage belongs to this folder, so that a trial in it of which nothing is known began here.
    """

    def __init__(
        self,
        storage: RDBStorage,
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
        self._flying: dict[Path, Trial] = {}
        self._left: list[int] = []
        self._heart: threading.Thread | None = None

    @property
    def total(self) -> int:
        """How many trials have not ended."""
        return self.trials - sum(trial.state.is_finished() for trial in self._numbered())

    def take_up(self) -> None:
        """Begin anew with what this folder left unfinished: trials that were cut off, or failed for want of means."""
        running = [trial for trial in self._numbered() if trial.state == TrialState.RUNNING]
        self._left = [trial.number for trial in running if self._is_ours(trial)]

    def next(self) -> Cell | None:
        """Return the next trial's training: first those that were taken up, then new ones."""
        while (number := self._claim()) is not None:
            trial = self._begin(number)
            path = self._folder / f"{self.label}-{number}"
            try:
                settings = from_mapping(joined(self._settings, trial.params), f"trial {path.name}")
            except InputError as error:  # parameters that do not go together
                self._end(trial, Outcome("failed", str(error)))
                continue
            self._flying[path] = trial
            self._begin_to_beat()
            return Cell(path, settings, watch=self._prune)
        return None

    def reported(self, cell: Cell, state: CellState) -> str:
        """Keep how stable a trial is, and stop it if the pruner says so."""
        trial = self._flying[cell.path]
        measured = {STEP_SIZE_NUMBER: state.step_size_number, LOG_GAIN: state.log_gain}
        for name, value in measured.items():
            if math.isnan(value) and name not in trial.user_attrs:
                continue
            trial.set_user_attr(name, None if math.isnan(value) else value)  # JSON has no NaN
            if state.step == 0:
                trial.set_user_attr(f"initial_{name}", value)
        return why(**measured) if trial.should_prune() else ""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Tell Optuna how a trial ended; one that was interrupted or failed stays begun, for the next start.

        A training fails where disk or memory are full, or its process is killed: that says nothing of its parameters.
        """
        trial = self._flying.pop(cell.path)
        if outcome.status in ("interrupted", "failed"):
            trial.set_user_attr("status", outcome.status)
            trial.set_user_attr("reason", outcome.reason)
        else:
            self._end(trial, outcome)
        if outcome.status == "interrupted":
            self._left.append(trial.number)

    def best(self, k: int) -> list[dict[str, Any]]:
        """Return the parameters of the k best trials that finished; the first wins a tie."""
        finished = [trial for trial in self._numbered() if status_of(trial) == "finished"]
        return [trial.params for trial in sorted(finished, key=lambda trial: -(trial.value or 0.0))[:k]]

    def all(self) -> list[FrozenTrial]:
        """Return what has been begun, and of the rest as much as is to be begun, by number."""
        trials = self.study.get_trials(deepcopy=False)
        begun = [trial.number + 1 for trial in trials if trial.state != TrialState.WAITING]
        return [trial for trial in trials if trial.number < max([self.trials, *begun])]

    def _numbered(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.number < self.trials]

    def _claim(self) -> int | None:
        """Return the number of a trial that this process is to train."""
        if self._left:
            return self._left.pop(0)
        while True:
            known = self._numbered()
            if len(known) >= self.trials and all(trial.state != TrialState.WAITING for trial in known):
                if self._release(known):
                    continue
                return None
            number = self.study.ask().number  # the first that waits, or a new one
            if number < self.trials:
                return number
            # Another process has made the last one at the same time. This one waits until more are wanted.
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
        return bool(where == self._here) or (there and self._is_abandoned(trial))  # the folder was moved

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Whether a trial that another folder began has nobody left who will end it."""
        where = str(trial.user_attrs.get("where", ""))
        if trial.state != TrialState.RUNNING or where in ("", self._here):
            return False
        host, _, folder = where.partition(":")
        if host == self._here.partition(":")[0] and not Path(folder).parent.exists():
            return True
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - float(trial.user_attrs.get("seen", begun)) > SILENCE

    def _release(self, trials: Sequence[FrozenTrial]) -> bool:
        """Let abandoned trials wait for whoever comes first; return whether there were any."""
        abandoned = [trial for trial in trials if self._is_abandoned(trial)]
        for trial in abandoned:
            self._storage.set_trial_state_values(self._id(trial.number), TrialState.WAITING)
        return bool(abandoned)

    def _begin_to_beat(self) -> None:
        """Give signs of life of the trials in flight, as long as there are any and this process lives."""
        if self._heart is None or not self._heart.is_alive():
            self._heart = threading.Thread(target=_beat, args=(weakref.ref(self),), daemon=True)
            self._heart.start()

    def _show_life(self) -> None:
        for trial in list(self._flying.values()):
            trial.set_user_attr("seen", time.time())

    def _begin(self, number: int) -> Trial:
        """Return a trial that is ours with its parameters; those it has stay."""
        self.study.sampler = self._seeded(number)
        trial = Trial(self.study, self._id(number))
        trial.set_user_attr("seen", time.time())
        trial.set_user_attr("where", self._here)
        if "status" in trial.user_attrs:
            trial.set_user_attr("status", "running")
            trial.set_user_attr("reason", "")
        for name, each in self.space.items():
            each.suggest(trial, name)
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
            # Not Optuna's grid sampler: of two processes it may give both the same point.
            return optuna.samplers.PartialFixedSampler(self.grid[number], random)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        known = outcome.status in ("finished", "diverged") and math.isfinite(outcome.accuracy)
        status = outcome.status if known or outcome.status == "pruned" else "failed"
        reason = outcome.reason or ("no validation accuracy was logged" if status != outcome.status else "")
        facts = {"status": status, "reason": reason, "steps": outcome.step, "seconds": outcome.seconds}
        for name, value in facts.items():
            if value != "" and value == value:  # neither nothing nor NaN
                trial.set_user_attr(name, value)
        state = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}.get(status, TrialState.COMPLETE)
        self.study.tell(trial, outcome.accuracy if known else None, state)


def _beat(search: weakref.ref[Search]) -> None:
    while True:
        time.sleep(HEARTBEAT)
        alive = search()
        if alive is None:
            return
        with suppress(Exception):  # the trial has just ended, or the storage is away for a moment
            alive._show_life()
        del alive


def status_of(trial: FrozenTrial) -> str:
    """Return how a trial stands: in the words of `studies.engine.cell.Outcome`, "running" or "pending"."""
    said = str(trial.user_attrs.get("status", "running"))
    match trial.state:
        case TrialState.COMPLETE:
            return said
        case TrialState.RUNNING:
            return said if said in ("interrupted", "failed") else "running"
        case TrialState.PRUNED:
            return "pruned"
        case TrialState.FAIL:
            return "failed"
    return "pending"
