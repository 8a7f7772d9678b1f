"""A dask cluster on this machine, whose workers end with the process that starts it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError, one_line
from wtdiag.trainers.config.device import cores, gpus

if TYPE_CHECKING:
    from distributed import Client

RETRIES = 3
"""Number of times that a cell is trained again after its worker died."""
_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_CONFIG = {
    "distributed.worker.profile.enabled": False,  # it would stop a training a hundred times a second
    "distributed.nanny.pre-spawn-environ": {},  # dask's own limits
    # A machine that is busy or was suspended is slow; a process that has died is noticed without these.
    "distributed.deploy.lost-worker-timeout": "1 day",
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.connect": "10 minutes",
    "distributed.comm.timeouts.tcp": "10 minutes",
    # Each process would look at itself fifty times a second, which takes 2 to 3 % of a core.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.http.routes": [],  # pages for anyone on this machine
    "distributed.worker.http.routes": [],
}


@contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """Provide a client of worker processes, each with its share of the cores and, if there are any, the resource GPU.

    A worker that dies is replaced. If this process is killed, its workers end at once. Nobody else can connect to them:
    the connections are encrypted, with keys that are made for this cluster.

    Raises
    ------
    InputError
        If they cannot be started.
    """
    import dask
    from distributed import Client, LocalCluster

    share = threads_of_each(workers)
    with _environment(dict.fromkeys(_LIMITS, str(share))), dask.config.set(_CONFIG), ExitStack() as opened:
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=share,
                processes=True,
                memory_limit=None,
                dashboard_address="127.0.0.1:0",
                security=True,
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={"allowed_failures": RETRIES, "dashboard": False},
                preload=__name__,
                resources={"GPU": 1} if gpus() else None,
            )
            client = Client(opened.enter_context(cluster), set_as_default=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"jobs: {workers} workers cannot be started on this machine ({one_line(error)})"
            ) from error
        yield opened.enter_context(client)


def dask_setup(_: Any) -> None:
    """Prepare a worker process: dask calls this as the worker starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and decides what to do
    # What trains is imported at once, not only when the first cell arrives.
    threading.Thread(target=import_module, args=["wtdiag.studies.engine.task"], daemon=True).start()


def dask_teardown(_: Any) -> None:
    """End a worker process at once: dask calls this as the worker closes, when all that was trained is on the disk."""
    os._exit(0)


def threads_of_each(workers: int) -> int:
    """Return the number of threads of each worker: its share of the cores, or OMP_NUM_THREADS if that is less."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    share = max(1, cores() // workers)
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


@contextmanager
def _environment(limits: dict[str, str]) -> Iterator[None]:
    """Limit the cores of processes that are started inside; libraries read the limit when they are loaded."""
    touched = (*limits, "PYTHONHASHSEED")  # dask sets the latter
    before = {name: os.environ[name] for name in touched if name in os.environ}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name in touched:
            os.environ.pop(name, None)
        os.environ.update(before)
