"""SQLite under a store: its file, how connections are set up, and what leaves no trace in it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from elision.errors import StoreError

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another process's transaction before it gives up."""


def open_sqlite(url: URL, *, name: str) -> Engine:
    """Return an engine on the file that *url* names, made if absent, in write-ahead mode.

    The file is created readable by its owner only; one that exists keeps its mode. Commits are
    on the disk when they return (``synchronous=FULL``), and what is deleted is overwritten.
    Statements run in deferred transactions; the execution option ``begin="IMMEDIATE"`` takes the
    write lock at the start instead. *name* is that of the engine's log.

    Raises:
        OSError: If the file cannot be made.
    """
    path = Path(str(url.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(url, hide_parameters=True, max_overflow=-1, logging_name=name)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        _persistently(engine, _switch_to_wal)
    except BaseException:
        engine.dispose()
        raise
    return engine


def empty_log(engine: Engine) -> None:
    """Bring the write-ahead log into the database and cut it to nothing.

    Until then it still holds the pages that a purge has overwritten.

    Raises:
        StoreError: If readers hold it open for longer than the busy timeout.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while _raw(engine, "PRAGMA wal_checkpoint(TRUNCATE)")[0]:
        if time.monotonic() > deadline:
            raise StoreError(
                "it is erased, but a long reader keeps the database's write-ahead log from being "
                "emptied; do it once more"
            )
        time.sleep(0.01)


def sweep_free_pages(engine: Engine) -> None:
    """Rebuild the file, so that nothing is left in its free pages; then empty the log.

    Raises:
        StoreError: As `empty_log`.
    """
    _persistently(engine, lambda connection: connection.cursor().execute("VACUUM"))
    empty_log(engine)


def sweep_once(engine: Engine, version: int) -> None:
    """Sweep a file whose ``user_version`` is lower, and raise it.

    Done once in the life of a file; cut short, it is done at the next opening.
    """
    if _raw(engine, "PRAGMA user_version")[0] >= version:
        return
    sweep_free_pages(engine)
    _raw(engine, f"PRAGMA user_version = {version}")


def _raw(engine: Engine, statement: str) -> tuple[Any, ...]:
    """Run *statement* outside of any transaction and return its first row."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        row = cursor.execute(statement).fetchone()
        cursor.close()
        return tuple(row or ())
    finally:
        connection.close()


def _prepare(connection: Any, _record: object) -> None:
    for pragma in (
        f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
        "foreign_keys = ON",
        "synchronous = FULL",
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


def _switch_to_wal(connection: Any) -> None:
    connection.cursor().execute("PRAGMA journal_mode = WAL")


def _persistently(engine: Engine, act: Callable[[Any], object]) -> None:
    """Do what SQLite refuses at once while another process is in the file, until it succeeds.

    The switch to write-ahead logging does not wait while another process is just making the file,
    whatever the busy timeout (one of 120 such meetings failed), so it is tried again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        connection = engine.raw_connection()
        try:
            act(connection)
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        finally:
            connection.close()
