"""One SQLite database: its file, its connections, and the way to the newest schema."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from elision.errors import ConfigError, GuardError
from elision.guards.schema import HEAD

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another process's transaction before it gives up."""

# Alembic keeps the migration under way in a global, so threads take turns.
_MIGRATING = threading.Lock()


def connect(where: str | Path) -> Engine:
    """Open the SQLite database at *where*, made if absent, in the newest schema.

    The file is created readable by its owner only; one that exists keeps its mode. Commits are
    on the disk when they return (WAL, ``synchronous=FULL``). Two processes may open at once.

    Args:
        where: A path, or a ``sqlite:///`` URL.

    Returns:
        An engine whose statements run in deferred transactions; the execution option
        ``begin="IMMEDIATE"`` takes the write lock at the start instead.

    Raises:
        ConfigError: If the place cannot be used, or a newer Elision wrote the database.
    """
    url = _url_of(where)
    path = Path(str(url.database))
    try:
        _make_file(path)
        return _ready(_engine(url))
    except OSError as exc:
        raise ConfigError(f"the register {str(path)!r} cannot be opened: {exc.strerror}") from exc
    except (SQLAlchemyError, sqlite3.Error) as exc:
        raise ConfigError(
            f"the register {str(path)!r} cannot be opened: {_reason(exc)}; "
            "name another file, or move this one away"
        ) from exc


@contextmanager
def told() -> Iterator[None]:
    """Turn what the database raises into a `GuardError` without statement and values."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as exc:
        raise GuardError(f"the register's database failed: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    """Name a database's error: SQLite's words tell tables and columns, never values."""
    origin = getattr(exc, "orig", exc)
    return str(origin) if isinstance(origin, sqlite3.Error) else type(exc).__name__


def _url_of(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    try:
        url = make_url(where)
    except ArgumentError as exc:
        raise ConfigError("the register's URL cannot be read; write sqlite:////PATH") from exc
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        raise ConfigError(
            f"the register's URL has the scheme {url.drivername!r}; "
            "this version keeps it in an SQLite file: write sqlite:////PATH"
        )
    return url


def _make_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _engine(url: URL) -> Engine:
    # SQLAlchemy's messages would quote the values, which are the phrases, and at DEBUG its log
    # the rows: neither is for others to read.
    engine = create_engine(url, hide_parameters=True, max_overflow=-1, logging_name="register")
    log = logging.getLogger("sqlalchemy.engine.Engine.register")
    log.addFilter(_above_debug)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _ready(engine: Engine) -> Engine:
    try:
        _switch_to_wal(engine)
        _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(connection: Any, _record: object) -> None:
    for pragma in (
        f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
        "foreign_keys = ON",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


def _switch_to_wal(engine: Engine) -> None:
    """Turn on write-ahead logging, which stays on in the file.

    SQLite does not wait at this switch while another process is just making the file, whatever
    the busy timeout (one of 120 such meetings failed), so it is tried again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection = engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _upgrade(engine: Engine) -> None:
    with engine.begin() as connection:
        if _version(connection) == HEAD:
            return
    with _MIGRATING, engine.execution_options(begin="IMMEDIATE").begin() as connection:
        if _version(connection) != HEAD:
            _migrate(connection)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "elision.guards:migrations")
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise ConfigError(
            f"the register stands at schema {_version(connection)!r}, which this version does "
            f"not know (newest known: {HEAD!r}); install the Elision that wrote it"
        ) from exc
