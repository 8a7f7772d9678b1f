"""The workers that train the cells of a grid, a search or a transfer: processes of this machine, or a dask cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console

from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.board import Board
from wtdiag.studies.engine.cell import Cell, CellSource, Outcome, is_done, outcome_of
from wtdiag.studies.engine.link import Link

PATIENCE = 20.0
"""Seconds that trainings have to stop when the user interrupts."""


class Workers:
    """Workers that train cells as tasks of dask, each one cell at a time.

    Those of this machine are started when they are first needed, and kept until the workers are closed. Each computes
    with its share of the cores, or with OMP_NUM_THREADS of them if that is less, and on a GPU of its own if there are
    several. If this process is killed, the workers end, or those of a cluster stop, and the next start resumes their
    cells from the newest checkpoints. If a worker dies, for example because memory ran out, its cell is resumed on
    another one; a cell that has cost four workers their lives ends as "failed".

    A cell asks for the resource GPU if its device is a CUDA one, or if it is "auto" and there are workers with a GPU.

    Parameters
    ----------
    jobs
        Number of cells at a time; by default, on a cluster, one for each worker, and on this machine one for each GPU
        or, without a GPU, for each core, as a small network does not use several.
    scheduler
        Address of the scheduler of a dask cluster, such as ``tcp://host:8786``. Its workers need this version of wtdiag
        and the same file system. By default processes of this machine are started.
    console
        Where progress is shown if it is a terminal; default: standard error.

    Raises
    ------
    InputError
        If ``jobs`` is not positive, or the cluster cannot be used.

    Examples
    --------
    >>> with Workers(2) as workers:
    ...     workers.run()  # nothing to do
    """

    def __init__(self, jobs: int | None = None, scheduler: str | None = None, console: Console | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise InputError(f"jobs: expected a positive number of processes, got {jobs}")
        self._console = console or Console(stderr=True)
        self.link = Link(jobs, scheduler)

    def run(self, *sources: CellSource) -> None:
        """Train all cells of all sources; cells that are done are skipped, and those that were interrupted are resumed.

        Raises
        ------
        InputError
            If the directory of a cell holds a run with other settings, a cell asks for a GPU and no worker has one, or
            the cluster is lost. The cells in training are interrupted.
        KeyboardInterrupt
            If the user interrupts; the cells in training end as "interrupted".
        """
        busy: dict[str, _InTraining] = {}
        with Board(sum(source.total for source in sources), self._console) as board:
            try:
                self._hand_out(sources, busy, board)
                places = self.link.places
                while busy:
                    if self._hear(busy, board) or self.link.places > places:
                        self._hand_out(sources, busy, board)
                    places = self.link.places
            except BaseException:
                self._interrupt(busy)
                raise

    def close(self) -> None:
        """End the workers of this machine, or leave the cluster."""
        self.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand_out(self, sources: Sequence[CellSource], busy: dict[str, _InTraining], board: Board) -> None:
        """Give each free worker a cell, and report those that are done already."""
        for source in sources:
            while len(busy) < self.link.places and (cell := source.next()) is not None:
                if is_done(cell):
                    outcome = outcome_of(cell.path)
                    assert outcome is not None
                    source.ended(cell, outcome)
                    board.ended(cell, outcome)
                else:
                    try:
                        busy[self.link.submit(cell)] = _InTraining(source, cell)
                    except BaseException:
                        source.ended(cell, _NOT_BEGUN)
                        raise

    def _hear(self, busy: dict[str, _InTraining], board: Board) -> bool:
        """Receive a message if there is one, and return whether a cell has ended."""
        message = self.link.hear(PATIENCE)
        if message is None or message.key not in busy:
            return False
        source, cell, begun = busy[message.key]
        if message.word == "ended":
            outcome = self.link.outcome(message.key)
            del busy[message.key]
            source.ended(cell, outcome)
            board.ended(cell, outcome)
            return True
        if not begun:
            busy[message.key] = _InTraining(source, cell, begun=True)
        if message.state is not None:
            board.show(cell, message.state)
            if message.word == "watch":
                self.link.answer(message, source.reported(cell, message.state))
        return False

    def _interrupt(self, busy: dict[str, _InTraining]) -> None:
        """Stop the cells in training, and wait for them a while."""
        self.link.cancel()
        stopping = {key for key, each in busy.items() if each.begun}
        end = time.monotonic() + PATIENCE
        with suppress(InputError):  # the cluster is lost
            while stopping and (left := end - time.monotonic()) > 0:
                message = self.link.hear(left)
                if message is not None and message.word == "stopped":
                    stopping.discard(message.key)
        for source, cell, _ in busy.values():
            with suppress(InputError):
                source.ended(cell, _left(cell))


class _InTraining(NamedTuple):
    """A cell in training, its source, and whether a worker has begun with it."""

    source: CellSource
    cell: Cell
    begun: bool = False


_NOT_BEGUN = Outcome("interrupted", "stopped by the user")


def _left(cell: Cell) -> Outcome:
    """Return the outcome of a cell that was in training when the user interrupted."""
    outcome = outcome_of(cell.path)
    if outcome is not None and outcome.status != "interrupted":
        return outcome
    return Outcome("interrupted", "stopped by the user", outcome.step if outcome else 0)
