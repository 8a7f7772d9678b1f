"""Memory that a process frees: kept for what it allocates next.

An analysis allocates and frees matrices of the same sizes over and over. If each of them is given back to the system at
once, the system has to clear new pages for the next one, which takes longer than much of the arithmetic. The workers of
dask are started so that they do give it back at once (``MALLOC_TRIM_THRESHOLD_``).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_LARGEST = 2**25  # bytes, the largest mapping threshold of glibc: larger pieces are mapped, and unmapped when freed
_NEVER = -1


def keep_freed_memory() -> None:
    """Keep what is freed from now on; the most that is in use at a time stays the same. Without glibc, do nothing."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def return_freed_memory() -> None:
    """Give freed memory back to the system from now on, by the thresholds that glibc itself arrives at."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory that is freed inside."""
    keep_freed_memory()
    try:
        yield
    finally:
        return_freed_memory()


@cache
def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return libc if hasattr(libc, "mallopt") else None
