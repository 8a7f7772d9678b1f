"""Snapshots written while training goes on: one thread, few buffers, no failure unnoticed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from torch import nn

from wtdiag.probes.records.schema import write_snapshot
from wtdiag.trainers.record.staging import Staging


class BackgroundWriter:
    """Writes staged copies in the order they come; who asks for a buffer waits while all are being written.

    A write that failed is raised by every later call. What was handed over is written also if the program
    ends without `close`: the executor's thread is joined at exit.

    Parameters
    ----------
    model
        What the buffers are to hold copies of.
    buffers
        Copies in memory at most, each as large as the model.
    """

    def __init__(self, model: nn.Module, buffers: int = 2) -> None:
        self._free: SimpleQueue[Staging] = SimpleQueue()
        self._pending: deque[Future[None]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="wtdiag-snapshots")
        for _ in range(buffers):
            staging = Staging()
            staging.reserve(model)
            self._free.put(staging)

    def take(self) -> Staging:
        """Return a buffer that nobody uses; wait for one if need be."""
        self.check()
        return self._free.get()

    def give(self, staging: Staging) -> None:
        """Take a buffer back unwritten."""
        self._free.put(staging)

    def write(self, staging: Staging, path: Path) -> None:
        """Write a filled buffer to ``path``, some time soon, and take it back."""
        self._pending.append(self._executor.submit(self._write, staging, path))

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        while self._pending and self._pending[0].done():
            self._pending[0].result()  # a failed one stays first in line
            self._pending.popleft()

    def flush(self) -> None:
        """Wait until all that was handed over is on the disk; raise if it is not."""
        wait(self._pending)
        self.check()

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._executor.shutdown()
        self.check()

    def _write(self, staging: Staging, path: Path) -> None:
        try:
            write_snapshot(path, staging.snapshot())
        finally:
            self.give(staging)
