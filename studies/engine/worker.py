"""The worker process, which trains the cells that it receives through a pipe."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from wtdiag.diagnostics.analysis.analyze import analyze, write_analysis
from wtdiag.probes.errors import InputError, first_line
from wtdiag.probes.records import rundir
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import ANALYSIS, CONFIG
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


def work(connection: Connection, index: int, threads: int) -> None:
    """Train the cells that come through ``connection`` until it closes, as it does if the other end is killed.

    The worker sends pairs of a word and a value: ("state", `CellState`) from time to time; ("watch", `CellState`),
    after which it waits for an answer, "" or a reason to stop; and ("ended", `Outcome`) at the end of a cell. A cell
    that cannot be trained or measured ends as "failed". If a None arrives during a training, the cell is interrupted.

    Parameters
    ----------
    connection
        A connection whose other end belongs to `studies.engine.pool.Pool`.
    index
        Number of this worker; each takes a GPU of its own if there are several.
    threads
        Number of cores that it may use.
    """
    take_share(index, threads)
    load = DataCache(load_data)
    try:
        while True:
            cell = connection.recv()
            if cell is not None:  # a None here was meant for a cell that has ended by itself
                connection.send(("ended", _ended(cell, connection, load)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _ended(cell: Cell, connection: Connection, load: DataCache[data.Data]) -> Outcome:
    try:
        outcome = outcome_of(cell.path)
        if outcome is None or outcome.status not in ENDED:
            outcome = _train(cell, connection, load(cell.settings))
        if outcome.status in ("finished", "diverged") and not is_done(cell):
            _measure(cell)
    except InputError as error:
        return Outcome("failed", str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        raise
    except Exception as error:  # memory or the disk may be full; the other cells continue
        return Outcome("failed", f"{type(error).__name__}: {first_line(error)}")
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


def _train(cell: Cell, connection: Connection, dataset: data.Data) -> Outcome:
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
                state = _state(training.progress, *stability(training))
                connection.send(("watch", state))
                answer = connection.recv()
                if answer:
                    training.prune(answer)
                    break
                if answer is None:
                    return _stopped(step)
            if connection.poll():
                connection.recv()
                return _stopped(step)
            next(steps)
            if time.monotonic() - shown > REPORT_SECONDS:
                shown = time.monotonic()
                connection.send(("state", _state(training.progress)))
    outcome = outcome_of(cell.path)
    assert outcome is not None
    return outcome


def _stopped(step: int) -> Outcome:
    return Outcome("interrupted", "stopped by the user", step)


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
