"""A dask cluster that measures the snapshots of a run."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wtdiag.probes.errors import InputError, one_line

T = TypeVar("T")

CONNECT_SECONDS = 5
WORKER_SECONDS = 60  # a batch system starts workers only when it has room

Each = Callable[[Callable[[int], T], Sequence[int]], Iterator[T]]
"""The type of the builtin `map` for a function of the step."""


@contextmanager
def cluster(address: str) -> Iterator[Each[Any]]:
    """Provide a `map` that calls a function of the step on the workers of a dask scheduler.

    The function is pickled once. A worker process keeps its state, such as a rebuilt network, from one step to the
    next, and takes one step at a time. Results come in the order of the steps.

    Parameters
    ----------
    address
        Address of the scheduler: ``tcp://host:port`` or ``tls://host:port``.

    Raises
    ------
    InputError
        If ``address`` is not an address, no scheduler answers, there are no workers, or a worker is lost or cannot load
        the function. Errors of the function are passed on.

    Examples
    --------
    >>> with cluster("localhost"):
    ...     pass
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: scheduler: 'localhost' is not an address; expected tcp://HOST:PORT
    """
    _check(address)
    import distributed  # loaded only when needed, because it is slow to load

    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler: {address!r} cannot be reached ({one_line(error)})") from error

    def each(function: Callable[[int], T], steps: Sequence[int]) -> Iterator[T]:
        # Dask's own pickle includes what a user's script defines.
        pickled = distributed.protocol.pickle.dumps(function)  # type: ignore[no-untyped-call]
        futures = client.map(_at, steps, token=secrets.token_hex(8), pickled=pickled, pure=False)
        for step, future in zip(steps, futures, strict=True):
            try:
                yield future.result()
            # A worker was killed, is unreachable or lacks wtdiag, or the scheduler has gone.
            except (distributed.scheduler.KilledWorker, asyncio.CancelledError, OSError, ImportError) as error:
                raise InputError(f"scheduler: {address!r} lost step {step} ({one_line(error)})") from error

    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise InputError(f"scheduler: {address!r} has no workers after {WORKER_SECONDS} s") from error
        yield each


_lock = Lock()
_kept: dict[str, Callable[[int], Any]] = {}


def _at(step: int, token: str, pickled: bytes) -> Any:
    """Call the pickled function on a worker."""
    with _lock:  # because the function's network holds the weights of one step
        if token not in _kept:
            _kept.clear()
            _kept[token] = pickle.loads(pickled)
        return _kept[token](step)


def _check(address: str) -> None:
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port  # port raises beyond 65535
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"scheduler: {address!r} is not an address; expected tcp://HOST:PORT")
