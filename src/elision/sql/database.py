"""One database under a store, SQLite or PostgreSQL: transactions, and the newest schema."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, column, inspect, select
from sqlalchemy import table as sql_table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from elision.errors import ConfigError, ElisionError, StoreError
from elision.sql.postgres import become_the_writer, open_postgres, sweep_dead_rows
from elision.sql.sqlite import empty_log, open_sqlite, sweep_free_pages, sweep_once

_ADVICE = {
    "disk is full": "free some space on its disk",
    "disk I/O error": "look whether its disk is full or failing",
    "database is locked": "another process holds it; end that one, or try again",
    "readonly": "make its file and folder writable",
    "LockNotAvailable": "another replica holds it; end that one, or try again",
    "DiskFull": "free some space on the server's disk",
    "OperationalError": "look whether the database server runs and can be reached",
}

# Alembic keeps the migration under way in a global, so threads take turns.
_MIGRATING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a database holds, and how that is spoken of.

    Attributes:
        name: What errors and the log call it.
        migrations: Alembic's script location, ``PACKAGE:FOLDER``.
        head: The newest migration; a database that stands there needs no Alembic to be opened.
        version_table: Where a database says how far it is; one per layout, so that several fit.
        lock: PostgreSQL's advisory lock of the one writer; likewise.
        shrinking: Tables that erasure takes from.
        swept: ``user_version`` of an SQLite file whose free pages need no more sweeping; 0 never
            sweeps at opening.
        failure: What the database's errors become.
    """

    name: str
    migrations: str
    head: str
    version_table: str
    lock: int
    shrinking: tuple[str, ...] = ()
    swept: int = 0
    failure: type[ElisionError] = StoreError


class Database:
    """Where a store is kept; thread-safe, and shared by any number of processes.

    What the database raises becomes the layout's failure, without statement and values; what a
    server raised, whose words quote rows, is no cause of it either.

    Attributes:
        folder: Where an SQLite file lies; None for a server.
    """

    def __init__(self, where: str | Path, layout: Layout) -> None:
        """Open the database at a path or URL; `upgrade` must follow before anything else.

        Raises:
            ConfigError: If the place cannot be used.
            MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
        """
        url = _url_of(where, layout.name)
        self._layout = layout
        self.folder = Path(str(url.database)).parent if _is_sqlite(url) else None
        self._name = _name_of(url)
        with self._opening():
            open_ = open_sqlite if _is_sqlite(url) else open_postgres
            self._engine = open_(url, name=layout.name)
        # SQLAlchemy's log would have the rows at DEBUG: not for others to read.
        log = logging.getLogger(f"sqlalchemy.engine.Engine.{layout.name}")
        log.addFilter(_above_debug)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        self._reader = self._engine
        if self.folder is None:  # a server would show each statement another moment
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._write = threading.Lock()  # fairer among threads than SQLite's polling
        self._closed = False

    def is_made(self) -> bool:
        """Return whether the store stands here in the newest schema.

        Raises:
            ConfigError: If that cannot be told.
        """
        with self._opening(), self._engine.connect() as connection:
            return self._version(connection) == self._layout.head

    def upgrade(self, **needed: Any) -> None:
        """Bring the schema to its newest form; migrations find *needed* among their attributes.

        Raises:
            ConfigError: If that fails, or a newer Elision wrote the database.
        """
        with self._opening():
            if not self.is_made():
                with _MIGRATING, self._writer.begin() as connection:
                    self._lock(connection)
                    if self._version(connection) != self._layout.head:
                        self._migrate(connection, needed)
            if self.folder is not None and self._layout.swept:
                sweep_once(self._engine, self._layout.swept)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees what any process has written by its first statement.

        All that it reads is of that one moment.

        Raises:
            ElisionError: The layout's failure, if the database fails or is closed.
        """
        with self._told(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction as the only writer of all; what it did is on the disk at its end.

        Raises:
            ElisionError: The layout's failure, if the database fails or is closed; then nothing
                was written.
        """
        with self._told(), self._write, self._writer.begin() as connection:
            self._lock(connection)
            yield connection

    def sweep(self, *, free_pages: bool = False) -> None:
        """Leave no trace of what has been deleted, as far as the database can.

        Args:
            free_pages: Whether an SQLite file is rebuilt too. What was deleted through this class
                has been overwritten already; what another program deleted has not.

        Raises:
            ElisionError: The layout's failure, if the database fails or is closed, or readers are
                in the way.
        """
        with self._told(), self._write:
            if self.folder is None:
                sweep_dead_rows(self._engine, self._layout.shrinking)
            elif free_pages:
                sweep_free_pages(self._engine)
            else:
                empty_log(self._engine)

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._closed = True
        self._engine.dispose()

    def _version(self, connection: Connection) -> str | None:
        table = self._layout.version_table
        if not inspect(connection).has_table(table):
            return None
        return connection.scalar(select(column("version_num")).select_from(sql_table(table)))

    def _migrate(self, connection: Connection, needed: dict[str, Any]) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util.exc import CommandError

        layout = self._layout
        config = Config(
            attributes={"connection": connection, "version_table": layout.version_table, **needed}
        )
        config.set_main_option("script_location", layout.migrations)
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            raise ConfigError(
                f"the {layout.name} stands at schema {self._version(connection)!r}, which this "
                f"version does not know (newest known: {layout.head!r}); install the Elision that "
                "wrote it"
            ) from exc

    def _lock(self, connection: Connection) -> None:
        if self.folder is None:
            become_the_writer(connection, self._layout.lock)

    @contextmanager
    def _told(self) -> Iterator[None]:
        if self._closed:
            raise self._layout.failure(f"the {self._layout.name} is closed; open it again")
        try:
            yield
        except StoreError as exc:
            raise self._layout.failure(str(exc)) from exc
        except (SQLAlchemyError, sqlite3.Error) as exc:
            reason = reason_of(exc)
            advice = next((f"; {do}" for sign, do in _ADVICE.items() if sign in reason), "")
            what = f"the {self._layout.name}'s database failed: {reason}{advice}"
            raise self._layout.failure(what) from self._cause(exc)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigError(
                f"the {self._layout.name} {self._name!r} cannot be opened: {exc.strerror}"
            ) from exc
        except (SQLAlchemyError, sqlite3.Error) as exc:
            raise ConfigError(
                f"the {self._layout.name} {self._name!r} cannot be opened: {reason_of(exc)}; "
                "name another place, or move this one away"
            ) from self._cause(exc)

    def _cause(self, exc: Exception) -> Exception | None:
        """Return what a failure may be traced back to: a server's errors quote whole rows."""
        return None if self.folder is None else exc


def reason_of(exc: Exception) -> str:
    """Name a database's error: SQLite's words tell tables and columns, never values.

    PostgreSQL's details quote values, so of its errors only the kind is told.
    """
    origin = getattr(exc, "orig", exc)
    return str(origin) if isinstance(origin, sqlite3.Error) else type(origin or exc).__name__


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _name_of(url: URL) -> str:
    return str(url.database) if _is_sqlite(url) else url.render_as_string(hide_password=True)


def _url_of(where: str | Path, name: str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    wanted = "write sqlite:////PATH or postgresql+psycopg://HOST/DATABASE"
    try:
        url = make_url(where)
    except ArgumentError as exc:
        raise ConfigError(f"the {name}'s URL cannot be read; {wanted}") from exc
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"the {name}'s URL has the scheme {url.drivername!r}; {wanted}")
    if _is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise ConfigError(f"the {name}'s URL names no file; {wanted}")
    return url


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
