"""Files that are whole or absent: written aside, moved into place; and JSON with one-line errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError

_ASIDE = re.compile(r"\..+\.((?P<place>[0-9a-f]{8})-(?P<process>\d+)-)?[0-9a-f]{8}\.tmp")
_GIVEN_UP = 86400.0
"""Seconds after which a file aside of another machine's process counts as left by one that was killed."""


@contextmanager
def write_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, move that file to ``path``.

    The file and then its folder are flushed to the disk, so at any instant, even after a power cut,
    ``path`` holds the old file or the new one, never a part. A block that raises leaves the old file.

    Raises
    ------
    InputError
        Where the operating system refuses: a full disk, a read-only or missing folder.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "note.txt")
    >>> with write_aside(target) as aside:
    ...     written = aside.write_text("whole")
    >>> target.read_text(), len(os.listdir(target.parent))
    ('whole', 1)
    """
    path = Path(path)
    # Two processes may write one file at once: each has its own name aside, the last to finish wins.
    aside = path.with_name(f".{path.name}.{_place()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    _remove_torn(path.parent)
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
        _flush(path.parent)
    # HDF5 raises a RuntimeError where the disk fills up while it flushes.
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: OSError | RuntimeError) -> str:
    """Say why in a few words; HDF5 hides what the system said in lines of its own."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    said = re.search(r"error message = '([^']*)'", str(error))
    return said[1] if said else " ".join(str(error).split())


@cache
def _remove_torn(folder: Path) -> None:
    """Remove what killed writers left in a folder, once for each process: a folder may hold very many files."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            match = _ASIDE.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(OSError):
                if match["place"] == _place():
                    torn = not _is_alive(int(match["process"]))
                else:
                    torn = time.time() - entry.stat(follow_symlinks=False).st_mtime > _GIVEN_UP
                if torn:
                    os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@cache
def _place() -> str:
    """Name this machine since its start, and the numbering of its processes, of which a container has its own."""
    try:
        marks = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        marks = socket.gethostname()
    return hashlib.sha256(marks.encode()).hexdigest()[:8]


def _flush(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` as readable JSON, atomically.

    Raises
    ------
    InputError
        If ``path`` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "config.json")
    >>> write_json(path, {"status": "running"})
    >>> read_json(path)
    {'status': 'running'}
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON object in ``path``.

    Raises
    ------
    InputError
        If the file is missing, unreadable or holds anything but one JSON object.

    Examples
    --------
    >>> read_json("nowhere/config.json")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: nowhere/config.json: cannot be read (No such file or directory); ...
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a JSON object") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); expected a JSON object") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a JSON {type(content).__name__}; expected an object")
    return content
