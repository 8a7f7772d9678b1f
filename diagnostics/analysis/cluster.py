"""Hand the snapshots of a run to a dask cluster."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wtdiag.probes.errors import InputError

T = TypeVar("T")

CONNECT_SECONDS = 5
WORKER_SECONDS = 60  # a batch system starts them when it has room

Each = Callable[[Callable[[int], T], Sequence[int]], Iterator[T]]
"""Like the builtin `map` with a function of the step."""


@contextmanager
def cluster(address: str) -> Iterator[Each[Any]]:
    """Give a `map` that calls a function of the step on the workers of a dask scheduler.

    The function is pickled once. A worker process keeps what the function made of itself, such as a rebuilt network,
    from one step to the next, and takes one step at a time. Results come in the order of the steps.

    Parameters
    ----------
    address
        Of the scheduler: ``tcp://host:port`` or ``tls://host:port``.

    Raises
    ------
    InputError
        If the address is none, no scheduler answers, there are no workers, or a worker is lost or cannot load the
        function; whatever the function raises.

    Examples
    --------
    >>> with cluster("localhost"):
    ...     pass
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: scheduler: 'localhost' is no address; expected tcp://HOST:PORT
    """
    _check(address)
    import distributed  # slow to load, and only for those who have a cluster

    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler: {address!r} cannot be reached ({_line(error)})") from error

    def each(function: Callable[[int], T], steps: Sequence[int]) -> Iterator[T]:
        # Dask's own pickle: what a user's script defines goes along.
        pickled = distributed.protocol.pickle.dumps(function)  # type: ignore[no-untyped-call]
        futures = client.map(_at, steps, token=secrets.token_hex(8), pickled=pickled, pure=False)
        for step, future in zip(steps, futures, strict=True):
            try:
                yield future.result()
            # Killed or unreachable workers, a scheduler that went away, workers without wtdiag.
            except (distributed.scheduler.KilledWorker, asyncio.CancelledError, OSError, ImportError) as error:
                raise InputError(f"scheduler: {address!r} lost step {step} ({_line(error)})") from error

    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise InputError(f"scheduler: {address!r} has no workers after {WORKER_SECONDS} s") from error
        yield each


_lock = Lock()
_kept: dict[str, Callable[[int], Any]] = {}


def _at(step: int, token: str, pickled: bytes) -> Any:
    """Call the function on a worker."""
    with _lock:  # its network holds the weights of one step
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
        raise InputError(f"scheduler: {address!r} is no address; expected tcp://HOST:PORT")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
