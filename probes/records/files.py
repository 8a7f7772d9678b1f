"""The files of a run: only regular files are read, and a file is written as a whole or not at all.

A run directory may come from anyone. Each file is opened here, or checked here before HDF5 opens it by its path: links
are not followed, and pipes and devices are not opened. The size, the nesting and the numbers of a JSON or TOML file and
of each line of JSON lines are limited; `probes.records.netcdf` limits what it reads itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import socket
import stat
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from wtdiag.probes.errors import InputError, one_line

_ASIDE = re.compile(r"\..+\.((?P<place>[0-9a-f]{8})-(?P<process>\d+)-)?[0-9a-f]{8}\.tmp")
_GIVEN_UP = 86400.0
"""Age in seconds at which the temporary file of a process on another machine counts as left by a killed process."""
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

LARGEST_TEXT = 2**24
"""Largest size of a JSON file or a line of metrics, in bytes. Its content in memory is up to 30 times as large."""
_LARGEST_TOML = 2**20
_MOST_DOTS = 1000  # tomllib takes time and memory that grow with the square of the number of parts of a key
DEEPEST = 64
"""Largest number of objects and lists nested in each other."""
_SPECIAL = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def open_regular(path: str | os.PathLike[str], *, follow: bool = False, writable: bool = False) -> BinaryIO:
    """Open a regular file for reading, or for reading and writing in place.

    Parameters
    ----------
    path
        The file to open.
    follow
        Whether the last part of the path may be a link. It may be one if the user named the file; but a link among the
        files of a run could lead to any file that the reader may read.
    writable
        Whether to open the file for writing too.

    Raises
    ------
    InputError
        If it is a link, a folder, a pipe or a device.
    OSError
        If the operating system refuses to open it.

    Examples
    --------
    >>> open_regular("/dev/null")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: /dev/null: is a device; expected a regular file
    """
    _check_regular(path, os.stat(path, follow_symlinks=follow).st_mode)
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY) | (0 if follow else os.O_NOFOLLOW)
    file = open(os.open(path, flags), "r+b" if writable else "rb")  # noqa: SIM115  (the caller closes it)
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode)  # it may have been replaced since the first check
    except BaseException:
        file.close()
        raise
    return file


def _check_regular(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _SPECIAL.get(stat.S_IFMT(mode), "a device")
        raise InputError(f"{path}: is {kind}; expected a regular file")


def read_text(path: str | os.PathLike[str], expected: str, *, follow: bool = False, largest: int = LARGEST_TEXT) -> str:
    """Read a UTF-8 text file of at most ``largest`` bytes, with or without a byte-order mark.

    Raises
    ------
    InputError
        If it cannot be read, is too large, or is not text; the message names ``expected`` as its expected content.
    """
    try:
        with open_regular(path, follow=follow) as file:
            content = file.read(min(largest, os.fstat(file.fileno()).st_size) + 1)
        if len(content) > largest:
            raise InputError(f"{path}: has more than {largest} bytes; expected {expected}")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); expected {expected}"
        ) from None


def parse_json(text: str | bytes) -> Any:
    r"""Parse JSON with at most `DEEPEST` levels of nesting and whole numbers of at most 64 bits.

    NaN and Infinity are accepted, because earlier versions wrote them. Half a character (a lone surrogate), which no
    file and no terminal can hold, becomes U+FFFD.

    Raises
    ------
    ValueError
        If the text is not such JSON; the message is one line.

    Examples
    --------
    >>> parse_json('{"step": 1e3, "name": "a\\ud800"}')
    {'step': 1000.0, 'name': 'a�'}
    >>> parse_json("[" * 100 + "]" * 100)
    Traceback (most recent call last):
    ...
    ValueError: objects and lists are more than 64 deep
    """
    content = _bounded(json.loads, text)
    escaped = "\\u" in text if isinstance(text, str) else b"\\u" in text  # nothing else gives half a character
    return _whole_characters(content) if escaped else content


def _whole_characters(value: Any) -> Any:
    """Return plain data with U+FFFD in place of each half of a character."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value


def _bounded(parse: Any, text: str | bytes) -> Any:
    try:
        content = parse(text)
        _check_bounds(content, DEEPEST)
    except RecursionError:
        raise ValueError(f"objects and lists are more than {DEEPEST} deep") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("a whole number has thousands of digits; expected at most 64 bits") from None
        raise
    return content


def _check_bounds(value: Any, depth: int) -> None:
    """Require that plain data is nested at most ``depth`` deep, and that its whole numbers have at most 64 bits."""
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"a whole number has {len(str(abs(value)))} digits; expected at most 64 bits")
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"objects and lists are more than {DEEPEST} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_bounds(item, depth - 1)


def read_json(path: str | os.PathLike[str], *, follow: bool = False) -> dict[str, Any]:
    """Read the JSON object in ``path``; ``follow`` says whether ``path`` may be a link, as for `open_regular`.

    Raises
    ------
    InputError
        If the file is missing or unreadable, or does not hold one JSON object within the limits of `parse_json`.

    Examples
    --------
    >>> read_json("nowhere/config.json")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: nowhere/config.json: cannot be read (No such file or directory); ...
    """
    try:
        content = parse_json(read_text(path, "a JSON object", follow=follow))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); expected a JSON object") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a JSON {type(content).__name__}; expected an object")
    return content


def read_toml(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Read a TOML file that the user named; return its content and its text.

    Raises
    ------
    InputError
        If it is missing, unreadable, not TOML, or exceeds the limits on size, nesting and numbers.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "my.toml")
    >>> path.write_text('rule = "fa"')
    11
    >>> read_toml(path)
    ({'rule': 'fa'}, 'rule = "fa"')
    """
    text = read_text(path, "TOML", follow=True, largest=_LARGEST_TOML)
    try:
        if any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a key has more than {_MOST_DOTS} parts")
        return _bounded(tomllib.loads, text), text
    except ValueError as error:
        raise InputError(f"{path}: cannot be parsed: {error}") from None


def json_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the JSON objects of a file, one on each line, without holding the file in memory.

    An incomplete last line, which a killed writer may leave, is skipped.

    Raises
    ------
    InputError
        If the file cannot be read, or a line is too long or is not a JSON object.
    """
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LARGEST_TEXT + 1), b""), start=1):
                if len(line) > LARGEST_TEXT:
                    raise InputError(
                        f"{path}: line {number} has more than {LARGEST_TEXT} bytes; expected a JSON object"
                    )
                if not line.endswith(b"\n"):
                    return
                text = line.decode("utf-8", errors="replace").rstrip("\n")
                try:
                    row = parse_json(text)
                except ValueError as error:
                    raise InputError(f"{path}: line {number} is not JSON ({error})") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}: line {number} is not a JSON object: {text[:60]!r}")
                yield row
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected lines of JSON") from error


def json_line(content: Mapping[str, Any]) -> bytes:
    r"""Return ``content`` as a line of JSON; numbers that are not finite become null, because JSON has none.

    Examples
    --------
    >>> json_line({"step": 3, "loss": float("nan")})
    b'{"step": 3, "loss": null}\n'
    """
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in content.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"


def check_json(content: Any) -> None:
    """Require plain data that `write_json` can write and `read_json` can read.

    Raises
    ------
    TypeError
        If it holds an object that JSON does not have.
    ValueError
        If it holds numbers that are not finite, or exceeds the limits of `parse_json`.

    Examples
    --------
    >>> check_json({"lr": float("inf")})
    Traceback (most recent call last):
    ...
    ValueError: Out of range float values are not JSON compliant...
    """
    _bounded(json.loads, json.dumps(content, allow_nan=False))


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` as readable JSON, atomically.

    Raises
    ------
    InputError
        If ``path`` cannot be written, or ``content`` holds a number that is not finite.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "config.json")
    >>> write_json(path, {"status": "running"})
    >>> read_json(path)
    {'status': 'running'}
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    with write_aside(path) as aside:
        aside.write_bytes(text.encode(errors="replace"))


@contextmanager
def write_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move that file to ``path`` when the block ends without an error.

    The file and then its folder are flushed to the disk, so at any instant, even after a power cut,
    ``path`` holds the old file or the new one, never a part. A block that raises leaves the old file.

    Raises
    ------
    InputError
        If the operating system refuses, for example because the disk is full or the folder missing or read-only.

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
    # Two processes may write one file at once: each has a temporary name of its own, and the last to finish wins.
    aside = path.with_name(f".{path.name}.{_place()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    _remove_torn(path.parent)
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
        _flush(path.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        raise InputError(f"{path}: cannot be written ({reason})") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def write_through(path: str | os.PathLike[str], *, keep: bool) -> Iterator[Stream]:
    """Yield a `Stream` whose content becomes ``path`` when the block ends.

    With ``keep``, the stream holds what may be read again in memory.

    Raises
    ------
    InputError
        As `write_aside` does, and if a write into the stream failed.
    """
    with write_aside(path) as aside, open(aside, "x+b", buffering=0) as file:
        stream = Stream(file.fileno(), keep)
        yield stream
        if stream.error is not None:
            raise stream.error


class Stream(io.RawIOBase):
    """A file for libraries that cannot handle a failed write: it never raises, but keeps the first ``error``.

    HDF5 ends the process with a segmentation fault if a file cannot be written when it is closed, and torch's writer
    hides the error of the operating system. What HDF5 reads again comes from memory, so it never notices that a write
    failed. HDF5 does not read arrays again, so they are not kept in memory: set ``array`` to the size of the next one.
    """

    _PAGE = 2**12
    _SMALL = 2**16  # HDF5 may gather smaller arrays in a buffer, and read them again

    def __init__(self, descriptor: int, keep: bool) -> None:
        self.error: OSError | None = None
        self.array = 0
        self.offsets: list[int] = []  # where the arrays begin, in their order
        self._descriptor, self._keep = descriptor, keep
        self._position = self._end = 0
        self._pages: dict[int, bytearray] = {}

    def write(self, data: ReadableBuffer) -> int:
        """Write ``data`` at the position; return the number of bytes."""
        view = memoryview(data).cast("B")
        if self._keep and not (len(view) == self.array > self._SMALL):
            for page, start, stop, offset in self._parts(len(view)):
                self._pages.setdefault(page, bytearray(self._PAGE))[start:stop] = view[offset : offset + stop - start]
        self._try(self._write, view)
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` with the bytes that were kept, and with zeros elsewhere."""
        view = memoryview(buffer).cast("B")
        for page, start, stop, offset in self._parts(len(view)):
            view[offset : offset + stop - start] = self._pages.get(page, bytes(self._PAGE))[start:stop]
        self._position += len(view)
        return len(view)

    def kept(self) -> dict[int, bytes]:
        """Return the pages that are kept in memory, by the position where each begins."""
        return {page * self._PAGE: bytes(content) for page, content in self._pages.items()}

    def restore(self, pages: Mapping[int, bytes], size: int) -> None:
        """Write pages that another stream has kept, for a file of that size; pages that adjoin are written at once."""
        joined: dict[int, bytearray] = {}
        start = end = -1
        for position in sorted(pages):
            if position != end:
                start = position
            joined.setdefault(start, bytearray()).extend(pages[position])
            end = position + len(pages[position])
        for position, content in joined.items():
            self.seek(position)
            self.write(content[: size - position])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, and return it."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file, and return it."""
        self._end = self._position if size is None else size
        self._try(os.ftruncate, self._descriptor, self._end)
        return self._end

    def readable(self) -> bool:
        """Return True: the stream can be read, written and sought."""
        return True

    writable = seekable = readable

    def _try(self, call: Any, *arguments: Any) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error

    def _write(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], self._position + done)

    def _parts(self, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the pages that ``length`` bytes from the position on lie in: number, start and stop in it, offset."""
        offset = 0
        while offset < length:
            page, start = divmod(self._position + offset, self._PAGE)
            stop = min(self._PAGE, start + length - offset)
            yield page, start, stop, offset
            offset += stop - start


@cache
def _remove_torn(folder: Path) -> None:
    """Remove the temporary files of killed writers from a folder, once in each process: a folder may hold very many."""
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
    except (OSError, OverflowError):  # it is the process of another user
        return True
    return True


@cache
def _place() -> str:
    """Return a name for this machine since its start and for its process numbers; a container has its own numbers."""
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
