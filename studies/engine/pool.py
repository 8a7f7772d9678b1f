"""A pool of processes that train the cells of a grid, a search or a transfer."""

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
"""Seconds that a worker has to stop when the user interrupts."""


class CellSource(Protocol):
    """A source of cells to train, which receives the outcome of each."""

    @property
    def total(self) -> int:
        """Number of all cells."""

    def next(self) -> Cell | None:
        """Return the next cell to train; None while there is none."""

    def reported(self, cell: Cell, state: CellState) -> str:
        """Return why a watched cell in some state should be stopped, and so end as "pruned"; "" to continue it.

        This is called before the first step and at the end of epochs 1, 2, 4, 8 ...; the training waits for the answer.
        """

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Receive the outcome of a cell."""


class Pool:
    """Worker processes that train cells; they are started when they are first needed, and kept until the pool closes.

    Each worker computes with its share of the cores, or with OMP_NUM_THREADS of them if that is less, and on a GPU of
    its own if there are several. If this process is killed, the workers end, and the next start resumes their cells
    from the newest checkpoints. If a worker is killed, for example because memory ran out, its cell ends as "failed",
    and another worker takes its place.

    Parameters
    ----------
    jobs
        Number of workers; by default one for each GPU or, without a GPU, for each core, as a small network does not
        use several.
    console
        Where progress is shown if it is a terminal; default: standard error.

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
        """Train all cells of all sources; cells that are done are skipped, and those that were interrupted are resumed.

        Raises
        ------
        InputError
            If the directory of a cell holds a run with other settings. The cells in training are interrupted.
        KeyboardInterrupt
            If the user interrupts; the cells in training end as "interrupted".
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
        """Give each free worker a cell, and report those that are done already."""
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
    """A worker process, the cell that it trains, and the source of that cell."""

    process: Any
    connection: Connection
    place: int
    source: Any = None
    cell: Any = None

    def take(self, source: CellSource, cell: Cell) -> None:
        self.source, self.cell = source, cell
        with suppress(BrokenPipeError, ConnectionResetError):  # it was killed while it was idle, which `hear` notices
            self.connection.send(cell)

    def hear(self, board: Board, *, stopping: bool = False) -> Outcome | None:
        """Receive one message, and return the outcome of the cell if it has ended."""
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
        with suppress(BrokenPipeError, ConnectionResetError):  # it was killed, which `hear` notices
            self.connection.send(None)


def _work(connection: Connection, index: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and decides what to do
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from wtdiag.studies.engine.worker import work

    work(connection, index, threads)


def _end_with_parent() -> None:
    """End this process at once when its parent has ended; files are moved into place, so none is left half written."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit the cores of processes that are started inside; libraries read the limit when they are loaded."""
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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
