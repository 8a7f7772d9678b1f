"""A dask cluster that somebody has started: the connection to it, and how it measures the snapshots of a run."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from wtdiag.diagnostics.analysis.freed_memory import keep_freed_memory, return_freed_memory
from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.version import __version__

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

CONNECT_SECONDS = 5
WORKER_SECONDS = 60  # a batch system starts workers only when it has room

Each = Callable[[Callable[[int], T], Sequence[int]], Iterator[T]]
"""The type of the builtin `map` for a function of the step."""


def connect(address: str) -> Client:
    """Return a client of a dask scheduler that has workers, all of them with this version of wtdiag.

    Parameters
    ----------
    address
        Address of the scheduler: ``tcp://host:port`` or ``tls://host:port``.

    Raises
    ------
    InputError
        If ``address`` is not an address, no scheduler answers, there are no workers, or one of them lacks wtdiag or has
        another version.

    Examples
    --------
    >>> connect("localhost")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: scheduler: 'localhost' is not an address; expected tcp://HOST:PORT
    """
    _check(address)
    import distributed  # loaded only when needed, because it is slow to load

    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler: {address!r} cannot be reached ({one_line(error)})") from error
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
        _check_versions(client, address)
    except TimeoutError as error:
        client.close()
        raise InputError(f"scheduler: {address!r} has no workers after {WORKER_SECONDS} s") from error
    except BaseException:
        client.close()
        raise
    return client


@contextmanager
def cluster(address: str) -> Iterator[Each[Any]]:
    """Provide a `map` that calls a function of the step on the workers of a dask scheduler.

    The function is pickled once. A worker process keeps its state, such as a rebuilt network, from one step to the
    next, and takes one step at a time. The work begins with the call; what is called later goes before what still waits
    for a worker. Results come in the order of the steps.

    Raises
    ------
    InputError
        As `connect` does, or if a worker is lost or cannot load the function. Errors of the function are passed on.
    """
    with connect(address) as client:
        import distributed

        session, calls = secrets.token_hex(8), count()

        def each(function: Callable[[int], T], steps: Sequence[int]) -> Iterator[T]:
            # Dask's own pickle includes what a user's script defines.
            pickled = distributed.protocol.pickle.dumps(function)
            call = next(calls)
            futures = client.map(_at, steps, token=(session, call), pickled=pickled, pure=False, priority=call)
            return results(steps, futures)

        def results(steps: Sequence[int], futures: Sequence[Any]) -> Iterator[T]:
            for step, future in zip(steps, futures, strict=True):
                try:
                    yield future.result()
                # A worker was killed, is unreachable or lacks wtdiag, or the scheduler has gone.
                except (distributed.scheduler.KilledWorker, asyncio.CancelledError, OSError, ImportError) as error:
                    raise InputError(f"scheduler: {address!r} lost step {step} ({one_line(error)})") from error

        yield each
        client.run(_leave, session, on_error="ignore")


def threads() -> int:
    """Return the number of threads that this process may use: those of the dask worker that it is, or its cores."""
    if "distributed" in sys.modules:
        with suppress(ValueError):
            return int(sys.modules["distributed"].get_worker().state.nthreads)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_lock = Lock()
_kept: dict[tuple[str, int], Callable[[int], Any]] = {}


def _at(step: int, token: tuple[str, int], pickled: bytes) -> Any:
    """Call the pickled function on a worker."""
    with _lock:  # because the function's network holds the weights of one step
        if token not in _kept:
            _forget(lambda other: other != token[0])
            _kept[token] = pickle.loads(pickled)
            keep_freed_memory()
        return _kept[token](step)


def _leave(session: str) -> None:
    """Free on a worker what it kept for a session that has ended."""
    _forget(lambda other: other == session)
    return_freed_memory()


def _forget(which: Callable[[str], bool]) -> None:
    for token in list(_kept):  # a copy, because another thread may keep a function meanwhile
        if which(token[0]):
            _kept.pop(token, None)


def _check(address: str) -> None:
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port  # port raises beyond 65535
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"scheduler: {address!r} is not an address; expected tcp://HOST:PORT")


def _check_versions(client: Client, address: str) -> None:
    def found() -> str | None:  # defined here, so that it travels whole: a worker may lack this module
        try:
            from wtdiag.probes.version import __version__ as version
        except ImportError:
            return None
        return version

    for worker, answer in client.run(found, on_error="return").items():
        if isinstance(answer, Exception):
            raise InputError(f"scheduler: {address!r}: its worker {worker} cannot be used ({one_line(answer)})")
        if answer != __version__:
            has = "lacks wtdiag" if answer is None else f"has wtdiag {answer}"
            raise InputError(f"scheduler: {address!r}: its worker {worker} {has}; expected {__version__} on all")
