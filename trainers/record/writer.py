"""A writer of snapshots in the background, with one thread and few buffers, that reports every failure."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from torch import nn

from wtdiag.probes.records.netcdf import Form
from wtdiag.probes.records.schema import write_snapshot
from wtdiag.trainers.record.staging import Reader, Staging


class BackgroundWriter:
    """A thread that writes staged copies in their order; `take` waits while all buffers are being written.

    If a write fails, every later call raises its error. Copies that were handed over are written even if the program
    ends without `close`, because the executor's thread is joined at exit.

    Parameters
    ----------
    model
        The model whose copies the buffers will hold.
    reader
        What reads the model; see `trainers.record.staging.Reader`.
    buffers
        Largest number of copies in memory, each as large as the model.
    """

    def __init__(self, model: nn.Module, reader: Reader | None = None, buffers: int = 2) -> None:
        self._free: SimpleQueue[Staging] = SimpleQueue()
        self._pending: deque[Future[None]] = deque()
        self._form = Form()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="wtdiag-snapshots")
        for _ in range(buffers):
            staging = Staging(reader)
            staging.reserve(model)
            self._free.put(staging)

    def take(self) -> Staging:
        """Return a free buffer; wait until there is one."""
        self.check()
        return self._free.get()

    def give(self, staging: Staging) -> None:
        """Take a buffer back without writing it."""
        self._free.put(staging)

    def write(self, staging: Staging, path: Path) -> None:
        """Write a filled buffer to ``path`` in the background, and take it back."""
        self._pending.append(self._executor.submit(self._write, staging, path))

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        while self._pending and self._pending[0].done():
            self._pending[0].result()  # a failed one stays first, so that later calls raise its error too
            self._pending.popleft()

    def flush(self) -> None:
        """Wait until every buffer that was handed over is on the disk, and raise if one is not."""
        wait(self._pending)
        self.check()

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._executor.shutdown()
        self.check()

    def _write(self, staging: Staging, path: Path) -> None:
        try:
            write_snapshot(path, staging.snapshot(), self._form)
        finally:
            self.give(staging)
