"""Errors of all readers of data files that are missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wtdiag.probes.errors import InputError, one_line


def require(condition: bool, path: Path, expected: str) -> None:
    """Raise an InputError about ``path`` unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{path}: is missing; expected {expected}")


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Turn any error in reading ``path`` into an InputError of one line that says what was expected."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files raise anything from AssertionError to zipfile.BadZipFile
        raise InputError(f"{path}: cannot be read; expected {expected} ({one_line(error)})") from error
