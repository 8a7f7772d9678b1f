"""The workers that train the cells of a grid, a search or a transfer: processes of this machine, or a dask cluster."""

from __future__ import annotations

import secrets
import time
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from wtdiag.diagnostics.analysis.cluster import WORKER_SECONDS, connect
from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.records.schema import wtdiag_version
from wtdiag.studies.engine.board import Board
from wtdiag.studies.engine.cell import Cell, CellSource, CellState, Outcome, is_done, outcome_of
from wtdiag.studies.engine.local import RETRIES, cores, local_cluster
from wtdiag.trainers.config.device import gpus

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 20.0
"""Seconds that trainings have to stop when the user interrupts."""
LOOK_SECONDS = 2.0
"""Seconds between two looks for workers that a cluster has gained or lost."""


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
        self._jobs, self._scheduler = jobs, scheduler
        self._console = console or Console(stderr=True)
        self._open = ExitStack()
        self._messages: SimpleQueue[tuple[str, str, Any]] = SimpleQueue()
        self._topic = f"wtdiag-{secrets.token_hex(8)}"
        self._client: Client | None = None
        self._has_gpu = False
        self._places = 0 if scheduler else jobs or gpus() or cores()
        self._seen = time.monotonic()
        if scheduler is not None:
            self._connected()
            self._look()

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
        busy: dict[str, _Task] = {}
        with Board(sum(source.total for source in sources), self._console) as board:
            try:
                self._hand_out(sources, busy, board)
                looked = time.monotonic()
                while busy:
                    freed = self._hear(busy, board)
                    if self._scheduler and time.monotonic() > looked + LOOK_SECONDS:
                        freed = self._look() or freed
                        looked = time.monotonic()
                    if freed:
                        self._hand_out(sources, busy, board)
            except BaseException:
                self._interrupt(busy)
                raise

    def close(self) -> None:
        """End the workers of this machine, or leave the cluster."""
        self._client = None
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> Client:
        if self._client is None:
            client = connect(self._scheduler) if self._scheduler else local_cluster(self._places)
            self._client = self._open.enter_context(client)
            self._client.subscribe_topic(self._topic, self._receive)
        return self._client

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        self._messages.put((message["key"], message["word"], message))

    def _look(self) -> bool:
        """Count the workers of a cluster, and return whether there are more places than before.

        Raises
        ------
        InputError
            If there has been none for a while, or the scheduler does not answer.
        """
        try:
            count = len(self._connected().nthreads())
        except (OSError, CancelledError) as error:
            raise self._lost(error) from error
        if count:
            self._seen = time.monotonic()
        elif time.monotonic() > self._seen + WORKER_SECONDS:
            raise InputError(f"scheduler: {self._scheduler!r} has had no workers for {WORKER_SECONDS} s")
        before, self._places = self._places, min(count, self._jobs or count)
        return self._places > before

    def _hand_out(self, sources: Sequence[CellSource], busy: dict[str, _Task], board: Board) -> None:
        """Give each free worker a cell, and report those that are done already."""
        for source in sources:
            while len(busy) < self._places and (cell := source.next()) is not None:
                if is_done(cell):
                    outcome = outcome_of(cell.path)
                    assert outcome is not None
                    source.ended(cell, outcome)
                    board.ended(cell, outcome)
                else:
                    task = _Task(source, cell)
                    busy[task.key] = task
                    self._submit(task)

    def _submit(self, task: _Task) -> None:
        from wtdiag.studies.engine.task import Order, train

        client = self._connected()
        resources = {"GPU": 1} if self._asks_for_gpu(task.cell) else None
        cell = task.cell.anywhere() if self._scheduler else task.cell
        order = Order(
            task.key,
            self._topic,
            wtdiag_version(),
            next(folder for folder in cell.path.resolve().parents if folder.exists()),
        )
        task.future = client.submit(train, cell, order, key=task.key, pure=False, resources=resources)
        task.future.add_done_callback(lambda future: self._messages.put((task.key, "done", future)))

    def _asks_for_gpu(self, cell: Cell) -> bool:
        """Return whether a cell needs a worker with a GPU.

        Raises
        ------
        InputError
            If it does, and there is none.
        """
        device = cell.settings.device
        if device.startswith("cuda") or (device == "auto" and not self._has_gpu):
            self._has_gpu = self._has_gpu or any(_resources(self._connected()))
        if device.startswith("cuda") and not self._has_gpu:
            where = f"of {self._scheduler!r}" if self._scheduler else "of this machine"
            raise InputError(
                f"device: cell {cell.path.name} asks for {device!r}, and no worker {where} has the resource GPU; "
                "expected workers started with --resources GPU=1, or device auto or cpu"
            )
        return self._has_gpu and device != "cpu"

    def _hear(self, busy: dict[str, _Task], board: Board) -> bool:
        """Receive a message if there is one, and return whether a worker is free."""
        try:
            key, word, message = self._messages.get(timeout=LOOK_SECONDS)
        except Empty:
            return False
        if key not in busy:
            return False
        task = busy[key]
        if word == "done":
            outcome = self._outcome(task.cell, message)
            del busy[key]
            task.source.ended(task.cell, outcome)
            board.ended(task.cell, outcome)
            return True
        task.begun = True
        if message["state"]:
            state = CellState(*message["state"])
            board.show(task.cell, state)
            if word == "watch":
                self._answer(key, message["worker"], task.source.reported(task.cell, state))
        return False

    def _answer(self, key: str, worker: str, reason: str) -> None:
        from wtdiag.studies.engine.task import answer

        self._connected().run(answer, key, reason, workers=[worker], on_error="ignore")  # or it has just died

    def _outcome(self, cell: Cell, future: Future[Outcome]) -> Outcome:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Outcome("failed", f"its worker died {RETRIES + 1} times")
        except InputError:
            raise
        except (OSError, CancelledError) as error:
            raise self._lost(error) from error
        except Exception as error:  # a worker cannot load the task
            raise InputError(
                f"scheduler: {self._scheduler!r} cannot train {cell.path.name} ({one_line(error)})"
            ) from error

    def _lost(self, error: BaseException) -> InputError:
        where = f"scheduler: {self._scheduler!r}" if self._scheduler else "jobs: the workers of this machine"
        return InputError(f"{where} was lost ({one_line(error)}); call the command again to continue")

    def _interrupt(self, busy: dict[str, _Task]) -> None:
        """Stop the cells in training, and wait for them a while."""
        futures = [task.future for task in busy.values() if task.future is not None]
        with suppress(Exception):  # there may be no scheduler any more, and then the workers stop by themselves
            if futures:
                self._connected().cancel(futures)
        begun = {key for key, task in busy.items() if task.begun}
        for key, word in self._words(time.monotonic() + PATIENCE):
            if not begun:
                break
            if word == "stopped":
                begun.discard(key)
        for task in busy.values():
            with suppress(InputError):
                task.source.ended(task.cell, _left(task.cell))
        busy.clear()

    def _words(self, until: float) -> Iterator[tuple[str, str]]:
        """Yield the messages that come until some time; a pair of empty texts before the first."""
        yield "", ""
        while (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                key, word, _ = self._messages.get(timeout=left)
                yield key, word


@dataclass
class _Task:
    """A cell in training, and its source."""

    source: CellSource
    cell: Cell
    future: Future[Outcome] | None = None
    begun: bool = False

    def __post_init__(self) -> None:
        self.key = f"{self.cell.path.name}-{secrets.token_hex(8)}"


def _left(cell: Cell) -> Outcome:
    """Return the outcome of a cell that was in training when the user interrupted."""
    outcome = outcome_of(cell.path)
    if outcome is not None and outcome.status != "interrupted":
        return outcome
    return Outcome("interrupted", "stopped by the user", outcome.step if outcome else 0)


def _resources(client: Client) -> Iterator[float]:
    """Yield the number of GPUs that each worker offers."""
    for worker in client.scheduler_info()["workers"].values():
        yield worker["resources"].get("GPU", 0)
