"""The link to workers that train: they are given cells, and send their states and outcomes."""

from __future__ import annotations

import secrets
import time
from asyncio import CancelledError
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from wtdiag.diagnostics.analysis.cluster import WORKER_SECONDS, connect
from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.version import __version__
from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.studies.engine.local_cluster import RETRIES, local_cluster
from wtdiag.trainers.config.device import cores, gpus

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 2.0
"""Seconds between two looks for workers that have come or gone."""
START_SECONDS = 600.0
"""Seconds that a worker of this machine has to take the place of one that died."""


class Message(NamedTuple):
    """What a worker has sent about a cell.

    Attributes
    ----------
    key : str
        What `Link.submit` returned for the cell.
    word : str
        "begun", "state", "watch" (it waits for `Link.answer`), "stopped" (it was cancelled) or "ended".
    state : CellState or None
        The state, with "state" and "watch".
    worker : str
        Address of the worker.
    """

    key: str
    word: str
    state: CellState | None = None
    worker: str = ""


class Link:
    """The link to the workers of this machine, which are started when they are first needed, or to those of a cluster.

    Parameters
    ----------
    jobs
        Number of cells at a time; by default one for each worker.
    scheduler
        Address of the scheduler of a dask cluster; by default processes of this machine are started.

    Attributes
    ----------
    places : int
        Number of cells that can be trained at a time.

    Raises
    ------
    InputError
        If the cluster cannot be used.
    """

    def __init__(self, jobs: int | None, scheduler: str | None) -> None:
        self._jobs, self._scheduler = jobs, scheduler
        self._open = ExitStack()
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._topic = f"wtdiag-{secrets.token_hex(8)}"
        self._client: Client | None = None
        self._futures: dict[str, Future[Outcome]] = {}
        self._has_gpu = False
        self.places = 0 if scheduler else jobs or gpus() or cores()
        self._where = f"scheduler: {scheduler!r}" if scheduler else "jobs: the cluster of this machine"
        self._patience = WORKER_SECONDS if scheduler else START_SECONDS
        self._looked = self._seen = time.monotonic()
        if scheduler:
            self._look()

    def submit(self, cell: Cell) -> str:
        """Give a cell to a worker, and return the key by which messages name it.

        Raises
        ------
        InputError
            If it asks for a GPU, and no worker has one.
        """
        from wtdiag.studies.engine.task import Order, train

        key = f"{cell.path.name}-{secrets.token_hex(8)}"
        resources = {"GPU": 1} if self._asks_for_gpu(cell) else None
        folder = next(folder for folder in cell.path.resolve().parents if folder.exists())
        order = Order(key, self._topic, __version__, folder)
        sent = cell.anywhere() if self._scheduler else cell
        future = self._connected().submit(train, sent, order, key=key, pure=False, resources=resources)
        self._futures[key] = future
        future.add_done_callback(lambda _: self._messages.put(Message(key, "ended")))
        return key

    def hear(self, seconds: float) -> Message | None:
        """Return the next message; None if there is none for a while, or if there are more places than before.

        Raises
        ------
        InputError
            If the cluster is lost, or there have been no workers for a while.
        """
        due = self._looked + LOOK_SECONDS
        with suppress(Empty):
            return self._messages.get(timeout=max(0.0, min(seconds, due - time.monotonic())))
        if time.monotonic() >= due:
            self._look()
        return None

    def outcome(self, key: str) -> Outcome:
        """Return the outcome of a cell that has ended.

        Raises
        ------
        InputError
            If it could not be trained because the cluster is lost, or the worker cannot be used.
        """
        from distributed import KilledWorker

        future = self._futures.pop(key)
        try:
            return future.result()
        except KilledWorker:
            return Outcome("failed", f"its worker died {RETRIES + 1} times")
        except InputError:
            raise
        except (OSError, CancelledError) as error:
            raise self._lost(error) from error
        except Exception as error:  # a worker cannot load the task
            raise InputError(f"{self._where}: a worker cannot train ({one_line(error)})") from error

    def answer(self, message: Message, reason: str) -> None:
        """Answer "watch": why the training should stop, or "" to continue it."""
        from wtdiag.studies.engine.task import answer

        try:  # the worker may have died meanwhile
            self._connected().run(answer, message.key, reason, workers=[message.worker], on_error="ignore")
        except (OSError, CancelledError) as error:
            raise self._lost(error) from error

    def cancel(self) -> None:
        """Let all trainings stop."""
        with suppress(Exception):  # there may be no scheduler any more, and then they stop by themselves
            if self._futures:
                self._connected().cancel(list(self._futures.values()))
        self._futures = {}

    def close(self) -> None:
        """End the workers of this machine, or leave the cluster."""
        self._client = None
        self._open.close()

    @property
    def started(self) -> bool:
        """Whether workers were needed so far."""
        return self._client is not None

    def _connected(self) -> Client:
        if self._client is None:
            client = connect(self._scheduler) if self._scheduler else local_cluster(self.places)
            self._client = self._open.enter_context(client)
            self._client.subscribe_topic(self._topic, self._receive)
        return self._client

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        sent = event[1]
        state = CellState(*sent["state"]) if sent["state"] else None
        self._messages.put(Message(sent["key"], sent["word"], state, sent["worker"]))

    def _look(self) -> None:
        """Count the workers of a cluster."""
        try:
            count = len(self._connected().nthreads())
        except (OSError, CancelledError) as error:
            raise self._lost(error) from error
        self._looked = time.monotonic()
        if count:
            self._seen = self._looked
        elif self._looked > self._seen + self._patience:
            raise InputError(f"{self._where} has had no workers for {self._patience:.0f} s")
        if self._scheduler:
            self.places = min(count, self._jobs or count)

    def _asks_for_gpu(self, cell: Cell) -> bool:
        device = cell.settings.device
        if device != "cpu" and not self._has_gpu:
            workers = self._connected().scheduler_info()["workers"].values()
            self._has_gpu = any(worker["resources"].get("GPU") for worker in workers)
        if device.startswith("cuda") and not self._has_gpu:
            where = f"of {self._scheduler!r}" if self._scheduler else "of this machine"
            raise InputError(
                f"device: cell {cell.path.name} asks for {device!r}, and no worker {where} has the resource GPU; "
                "expected workers started with --resources GPU=1, or device auto or cpu"
            )
        return self._has_gpu and device != "cpu"

    def _lost(self, error: BaseException) -> InputError:
        return InputError(f"{self._where} was lost ({one_line(error)}); call the command again to continue")
