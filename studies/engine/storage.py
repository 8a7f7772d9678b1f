"""Optuna storages that many processes share."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from wtdiag.probes.errors import InputError, first_line

_PATIENCE = 60.0
"""Seconds that a process waits for others to release an SQLite file."""
_REFUSED = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY
"""Result codes of SQLite when the disk refuses a write."""
_SYNCHRONOUS = "NORMAL"
"""How often SQLite flushes: a killed process loses nothing, a power cut may on a file system without a journal."""
_JOURNAL = "journal"
"""What the URL of a journal begins with: a file to which every process appends, also on a network's file system."""
_ENTRY = b'{"op_code":'


def open_storage(url: str) -> BaseStorage:
    """Open an Optuna storage, and create it if it does not exist; no connection to it stays open between two uses.

    Parameters
    ----------
    url
        A URL for Optuna's RDBStorage, of which PostgreSQL needs psycopg; or ``journal:///FILE`` for its JournalStorage.

    Raises
    ------
    InputError
        If it cannot be opened, is not a storage of Optuna, or its driver is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown, parts = shown_url(url), sqlalchemy.make_url(url)
    if parts.drivername == _JOURNAL:
        return _journal(parts.database, shown)
    if parts.drivername == "postgresql":
        parts = parts.set(drivername="postgresql+psycopg")
    sqlite = parts.get_backend_name() == "sqlite"
    options = {"poolclass": sqlalchemy.NullPool} | ({"connect_args": {"timeout": _PATIENCE}} if sqlite else {})
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            storage = RDBStorage(parts.render_as_string(hide_password=False), engine_kwargs=options)
            break
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            if attempts_left:
                time.sleep(0.2)  # another process may be creating the tables at this moment
                continue
            verb = "written" if _code(getattr(error, "orig", None)) in _REFUSED else "opened"
            raise InputError(f"storage: {shown} cannot be {verb} ({first_line(error.__cause__ or error)})") from None
        except ImportError as error:
            raise InputError(
                f"storage: {shown} needs a driver that is not installed ({first_line(error.__cause__ or error)})"
            ) from None
    if sqlite:
        _serialise(storage.engine)
    _explain(storage.engine, shown)
    return storage


def shown_url(url: str) -> str:
    """Return the URL of a storage without its password.

    Raises
    ------
    InputError
        If it is not a URL of a storage.

    Examples
    --------
    >>> shown_url("postgresql://me:secret@host/sweeps")
    'postgresql://me:***@host/sweeps'
    """
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise InputError(
            "storage: expected an Optuna URL, such as postgresql://USER@HOST/NAME, journal:///FILE or sqlite:///FILE"
        ) from None


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file, whatever characters its path has.

    The path is a URI of SQLite's own, because not every version of SQLAlchemy unquotes paths.

    Examples
    --------
    >>> sqlalchemy.make_url(sqlite_url(Path("/runs/a?b/trials.db"))).database
    'file:/runs/a%3Fb/trials.db'
    """
    database = f"file:{quote(os.fsencode(path.resolve()))}"
    return sqlalchemy.URL.create("sqlite", database=database, query={"uri": "true"}).render_as_string()


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Let every transaction on an SQLite file begin by taking its lock.

    Otherwise two processes may both read that a trial is waiting, and both take it, as SQLite has no
    SELECT ... FOR UPDATE.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _explain(engine: sqlalchemy.Engine, shown: str) -> None:
    """Let a database that can no longer be written, because the disk is full or its server gone, be an `InputError`."""

    @sqlalchemy.event.listens_for(engine, "handle_error")
    def failed(context: sqlalchemy.ExceptionContext) -> None:
        error = context.original_exception
        full = _code(error) in (*_REFUSED, sqlite3.SQLITE_CANTOPEN)
        if full or context.is_disconnect or (context.connection is None and not isinstance(error, sqlite3.Error)):
            raise InputError(f"storage: {shown} cannot be written ({first_line(error)})") from error


def _journal(file: str | None, shown: str) -> JournalStorage:
    if not file:
        raise InputError(f"storage: {shown} names no file; expected journal:///FILE")
    path = Path(file).absolute()  # its lock is a link to it
    try:
        _drop_torn_line(path)
        return JournalStorage(_Journal(path, shown))
    except OSError as error:
        raise InputError(f"storage: {shown} cannot be opened ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"storage: {shown} is not a journal of Optuna") from None


class _Journal(JournalFileBackend):
    """A journal that says so if the disk refuses a write."""

    def __init__(self, path: Path, shown: str) -> None:
        super().__init__(str(path))
        self._shown = shown

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise InputError(f"storage: {self._shown} cannot be written ({error.strerror})") from error


def _drop_torn_line(path: Path) -> None:
    """Remove a line that was begun when the disk became full: the next one would be appended to it."""
    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes()
        if not content.startswith(_ENTRY[: len(content)]):
            raise ValueError  # a file of another kind
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _code(error: object) -> int:
    """Return the primary result code of an SQLite error, or 0 for any other."""
    return (
        error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else 0
    )
