"""Trains cells on several processes, whatever gives them: a grid, a search, a transfer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console

from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.board import Board
from wtdiag.studies.engine.cell import Cell, CellState, Outcome, is_done, outcome_of
from wtdiag.trainers.config.device import gpus

PATIENCE = 20.0
"""Seconds that a worker has to leave off when the user interrupts."""


class CellSource(Protocol):
    """Gives cells as long as there are any, and is told how each ended."""

    @property
    def total(self) -> int:
        """How many cells there are in all."""

    def next(self) -> Cell | None:
        """Return the next cell to train; None while there is none to start."""

    def reported(self, cell: Cell, state: CellState) -> str:
        """Hear where a watched cell stands, and say "" to go on, or else why it is to stop: it ends as "pruned".

        Asked before the first step and at the ends of epochs 1, 2, 4, 8 ...; the training waits for the answer.
        """

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Hear how a cell ended."""


class Pool:
    """Worker processes that train cells, begun when first needed and kept until the pool is closed.

    Each worker computes with its share of the cores, or OMP_NUM_THREADS of them if that is less, and of several GPUs
    takes its own. When this process is killed, the workers end; what they were training is taken up from its newest
    checkpoint the next time. A worker that is killed, by want of memory say, makes its cell "failed", and another takes
    its place.

    Parameters
    ----------
    jobs
        How many; default: one for each GPU, or without one for each core: small networks do not fill several.
    console
        Where progress is shown, if it is a terminal; default: standard error.

    Raises
    ------
    InputError
        If ``jobs`` is not positive.

    Examples
    --------
    >>> with Pool(2) as pool:
    ...     pool.run()  # nothing to do
    """

    def __init__(self, jobs: int | None = None, console: Console | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise InputError(f"jobs: expected a positive number of processes, got {jobs}")
        self.jobs = jobs or gpus() or cores()
        self._console = console or Console(stderr=True)
        self._idle: list[_Worker] = []
        self._places = set(range(self.jobs))

    def run(self, *sources: CellSource) -> None:
        """Train all cells of all sources; a cell that is done already is not trained again, one begun is resumed.

        Raises
        ------
        InputError
            If the directory of a cell holds a run of other settings. Cells in flight are interrupted.
        KeyboardInterrupt
            If the user interrupts; the cells in flight end as "interrupted".
        """
        busy: dict[Connection, _Worker] = {}
        with Board(sum(source.total for source in sources), self._console) as board:
            try:
                self._hand_out(sources, busy, board)
                while busy:
                    for connection in wait(list(busy)):
                        assert isinstance(connection, Connection)
                        worker = busy[connection]
                        outcome = worker.hear(board)
                        if outcome is None:
                            continue
                        del busy[connection]
                        worker.source.ended(worker.cell, outcome)
                        board.ended(worker.cell, outcome)
                        if worker.process.is_alive():
                            self._idle.append(worker)
                        else:
                            self._places.add(worker.place)
                        self._hand_out(sources, busy, board)
            except BaseException:
                self._interrupt(busy.values(), board)
                raise

    def close(self) -> None:
        """End the workers."""
        for worker in self._idle:
            worker.connection.close()
        for worker in self._idle:
            worker.process.join(PATIENCE)
        self._idle = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand_out(self, sources: Sequence[CellSource], busy: dict[Connection, _Worker], board: Board) -> None:
        """Give each free worker a cell; on the way, tell of those that are done already."""
        for source in sources:
            while len(busy) < self.jobs and (cell := source.next()) is not None:
                if is_done(cell):
                    outcome = outcome_of(cell.path)
                    assert outcome is not None
                    source.ended(cell, outcome)
                    board.ended(cell, outcome)
                else:
                    worker = self._idle.pop() if self._idle else self._begin()
                    worker.take(source, cell)
                    busy[worker.connection] = worker

    def _begin(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        ours, theirs = context.Pipe()
        threads, place = self._share(), min(self._places)
        self._places.remove(place)
        process = context.Process(target=_work, args=(theirs, place, threads), daemon=True)
        with _threads(threads):
            process.start()
        theirs.close()
        return _Worker(process, ours, place)

    def _share(self) -> int:
        asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        share = max(1, cores() // self.jobs)
        return min(share, int(asked)) if asked.isdecimal() and int(asked) else share

    def _interrupt(self, busy: Iterable[_Worker], board: Board) -> None:
        busy = list(busy)
        for worker in busy:
            worker.stop()
        for worker in busy:
            outcome = None
            while outcome is None and worker.connection.poll(PATIENCE):
                outcome = worker.hear(board, stopping=True)
            if outcome is None:
                worker.process.kill()
                outcome = Outcome("interrupted", "stopped by the user")
            worker.source.ended(worker.cell, outcome)
            worker.connection.close()
            worker.process.join(PATIENCE)


@dataclass
class _Worker:
    """A process, what it is training and for whom."""

    process: Any
    connection: Connection
    place: int
    source: Any = None
    cell: Any = None

    def take(self, source: CellSource, cell: Cell) -> None:
        self.source, self.cell = source, cell
        with suppress(BrokenPipeError, ConnectionResetError):  # killed while it was idle: `hear` will tell
            self.connection.send(cell)

    def hear(self, board: Board, *, stopping: bool = False) -> Outcome | None:
        """Take in one message; return how the cell ended, if it has."""
        try:
            word, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(PATIENCE)
            self.connection.close()
            return Outcome("failed", f"its process was killed (exit code {self.process.exitcode})")
        if word == "ended":
            assert isinstance(value, Outcome)
            return value
        board.show(self.cell, value)
        if word == "watch" and not stopping:
            answer = self.source.reported(self.cell, value)
            with suppress(BrokenPipeError, ConnectionResetError):
                self.connection.send(answer)
        return None

    def stop(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # killed, then: `hear` will tell
            self.connection.send(None)


def _work(connection: Connection, index: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it, and says what is to be done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from wtdiag.studies.engine.worker import work

    work(connection, index, threads)


def _end_with_parent() -> None:
    """End this process when its parent has ended, in the middle of whatever it does: no file is left torn."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are begun inside compute with so many cores: libraries read it when they are loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
