"""Optuna storages: opened for many processes at once, closed when nobody uses them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from wtdiag.probes.errors import InputError, first_line

_PATIENCE = 60.0
"""Seconds that a process waits for others to let go of an SQLite file."""
_SYNCHRONOUS = "NORMAL"
"""What SQLite flushes: a process that is killed loses nothing; a power cut may, on a file system without a journal."""


def open_storage(url: str) -> RDBStorage:
    """Open an Optuna storage, made if it is not there; nothing stays open between two uses of an SQLite file.

    Raises
    ------
    InputError
        If it cannot be opened, is not Optuna's, or its driver is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = shown_url(url)
    sqlite = sqlalchemy.make_url(url).get_backend_name() == "sqlite"
    more = {"poolclass": sqlalchemy.NullPool, "connect_args": {"timeout": _PATIENCE}} if sqlite else {}
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            storage = RDBStorage(url, engine_kwargs=more)
            break
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            if attempts_left:
                time.sleep(0.2)  # another process may be making the tables at this very moment
                continue
            raise InputError(f"storage: {shown} cannot be opened ({first_line(error.__cause__ or error)})") from None
        except ImportError as error:
            raise InputError(
                f"storage: {shown} needs a driver that is not installed ({first_line(error.__cause__ or error)})"
            ) from None
    if sqlite:
        _serialise(storage.engine)
    return storage


def shown_url(url: str) -> str:
    """Return the URL of a storage without its password.

    Raises
    ------
    InputError
        If it is none.

    Examples
    --------
    >>> shown_url("postgresql://me:secret@host/sweeps")
    'postgresql://me:***@host/sweeps'
    """
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise InputError("storage: expected an Optuna URL, as sqlite:///FILE or postgresql://USER@HOST/NAME") from None


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file, whatever characters its path has.

    SQLite takes the path as a URI of its own, for not every version of SQLAlchemy unquotes paths.

    Examples
    --------
    >>> sqlalchemy.make_url(sqlite_url(Path("/runs/a?b/trials.db"))).database
    'file:/runs/a%3Fb/trials.db'
    """
    database = f"file:{quote(os.fsencode(path.resolve()))}"
    return sqlalchemy.URL.create("sqlite", database=database, query={"uri": "true"}).render_as_string()


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Let a transaction on an SQLite file begin with its lock.

    Otherwise two processes may both read that a trial waits, and both take it: SQLite has no SELECT ... FOR UPDATE.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
