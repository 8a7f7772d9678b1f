"""The task that a dask worker is given: train one cell, and send its state to the study meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock

from distributed import Reschedule, Status, Worker, get_worker

from wtdiag.diagnostics.analysis.analyze import analyze, write_analysis
from wtdiag.probes.errors import InputError, with_type
from wtdiag.probes.records import rundir
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import ANALYSIS, CONFIG
from wtdiag.probes.version import __version__
from wtdiag.studies.engine.cell import Cell, CellState, Outcome, is_done, outcome_of
from wtdiag.studies.predict.live_stability import stability
from wtdiag.trainers import data
from wtdiag.trainers.config.datasets import DataCache, load_data
from wtdiag.trainers.config.device import take_share
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.resume import TrainingProgress
from wtdiag.trainers.observe.open_run import attribution_of, fixed_feedback, open_run, signals_of

REPORT_SECONDS = 0.25
PATIENCE = 30.0
_ENDING = {Status.closing, Status.closed, Status.failed}
_INTERRUPTED = Outcome("interrupted", "stopped by the user")
_load = DataCache[data.Data](load_data)
_one_at_a_time = Lock()
_answers: dict[str, str] = {}


@dataclass(frozen=True)
class Order:
    """What a worker needs to know besides the cell.

    Attributes
    ----------
    key : str
        Key of the task.
    topic : str
        Topic of the events by which the worker sends `CellState`. An event holds the key, the worker's address, a word
        and the values of the state; the words are "begun", "state", "stopped", and "watch", after which the worker
        waits for an `answer`.
    version : str
        The version of wtdiag that the study runs with.
    folder : Path
        A folder of the study that exists.
    """

    key: str
    topic: str
    version: str
    folder: Path


def train(cell: Cell, order: Order) -> Outcome:
    """Train a cell on the worker that this is called on; a worker trains one cell at a time, with all its threads.

    The training stops, to be resumed later, when the study no longer wants it: it was interrupted, or has ended. A cell
    that cannot be trained or measured ends as "failed".

    Raises
    ------
    InputError
        If this worker has another version of wtdiag, or does not see the folder of the study.
    Reschedule
        If this worker ends; another one resumes the cell.
    """
    seat = _Seat(get_worker(), order)
    if __version__ != order.version:
        raise InputError(f"scheduler: worker {seat.worker.address} has wtdiag {__version__}, not {order.version}")
    if not order.folder.exists():
        raise InputError(
            f"scheduler: worker {seat.worker.address} does not see {order.folder}; expected the same file system"
        )
    with _one_at_a_time:
        seat.send("begun")
        take_share(seat.index, seat.worker.state.nthreads)
        outcome = _ended(cell, seat) if seat.wanted() else _INTERRUPTED
        if outcome.status == "interrupted":
            seat.leave()
        return outcome


def answer(key: str, reason: str) -> None:
    """Answer a "watch" on this worker: why the training should stop, or "" to continue it."""
    _answers[key] = reason


class _Seat:
    """The place of a training: its worker, and what it exchanges with the study."""

    def __init__(self, worker: Worker, order: Order) -> None:
        self.worker, self._order = worker, order
        self.index = worker.name if isinstance(worker.name, int) else 0

    def wanted(self) -> bool:
        """Return whether the study still waits for this training."""
        task = self.worker.state.tasks.get(self._order.key)
        return task is not None and task.state in ("executing", "long-running") and self.worker.status not in _ENDING

    def send(self, word: str, state: CellState | None = None) -> None:
        message = {"key": self._order.key, "worker": self.worker.address, "word": word}
        self.worker.log_event(self._order.topic, message | {"state": astuple(state) if state else ()})

    def ask(self, state: CellState) -> str | None:
        """Ask whether to continue, and return the answer; None if the study does not wait any more."""
        _answers.pop(self._order.key, None)
        self.send("watch", state)
        while self._order.key not in _answers:
            if not self.wanted():
                return None
            time.sleep(0.002)
        return _answers.pop(self._order.key)

    def leave(self) -> None:
        """Say that the training has stopped and its files are closed."""
        if self.worker.status in _ENDING:
            raise Reschedule
        self.send("stopped")


def _ended(cell: Cell, seat: _Seat) -> Outcome:
    try:
        outcome = outcome_of(cell.path)
        if outcome is None or outcome.status not in ENDED:
            outcome = _train(cell, seat, _load(cell.settings))
        if outcome.status in ("finished", "diverged") and not is_done(cell):
            _measure(cell)
    except Exception as error:  # memory or the disk may be full; the other cells continue
        return Outcome("failed", with_type(error))
    return outcome


def _await(path: Path) -> None:
    """Wait a while for a process that still records there: a worker whose study was just killed is about to end."""
    end = time.monotonic() + PATIENCE
    while path.exists():
        try:
            rundir.Hold(path).release()
            return
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _train(cell: Cell, seat: _Seat, dataset: data.Data) -> Outcome:
    _await(cell.path)
    training = Training(cell.settings, cell.path, dataset=dataset, resume=(cell.path / CONFIG).exists())
    training.begin()
    watched = _watch_epochs()
    due = next(watched) * training.epoch
    while due < training.progress.step:
        due = next(watched) * training.epoch
    shown = 0.0
    with closing(training):
        steps = iter(training)
        while training.progress.status == "running":
            step = training.progress.step
            if cell.watch and step == due:
                due = next(watched) * training.epoch
                reason = seat.ask(_state(training.progress, *stability(training)))
                if reason:
                    training.prune(reason)
                    break
            if not seat.wanted():
                return _INTERRUPTED
            next(steps)
            if time.monotonic() - shown > REPORT_SECONDS:
                shown = time.monotonic()
                seat.send("state", _state(training.progress))
    outcome = outcome_of(cell.path)
    assert outcome is not None
    return outcome


def _watch_epochs() -> Iterator[int]:
    """Yield the epochs after which a training is watched: 0, 1, 2, 4, 8 ..."""
    yield 0
    epoch = 1
    while True:
        yield epoch
        epoch *= 2


def _state(progress: TrainingProgress, step_size_number: float = math.nan, log_gain: float = math.nan) -> CellState:
    return CellState(
        progress.step,
        progress.total,
        progress.loss,
        progress.accuracy,
        progress.test_accuracy,
        step_size_number,
        log_gain,
    )


def _measure(cell: Cell) -> None:
    run = open_run(cell.path)
    analysis = analyze(run, cell.probes, signals_of(run), attribution_of(run), fixed=fixed_feedback(run))
    write_analysis(analysis, cell.path / ANALYSIS)
