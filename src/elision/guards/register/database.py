"""One database under a register, SQLite or PostgreSQL: transactions, and the newest schema."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from elision.errors import ConfigError, GuardError
from elision.guards.register.postgres import become_the_writer, open_postgres, sweep_dead_rows
from elision.guards.register.schema import HEAD
from elision.guards.register.sqlite import empty_log, open_sqlite, sweep_free_pages
from elision.guards.register.vault import Keys

_EPOCH = "SELECT epoch, due FROM epochs WHERE tenant = "
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


class Database:
    """Where a register is kept; thread-safe, and shared by any number of processes.

    What the database raises becomes a `GuardError` without statement and values.

    Attributes:
        folder: Where an SQLite file lies; None for a server.
    """

    def __init__(self, where: str | Path) -> None:
        """Open the database at a path or URL; `upgrade` must follow before anything else.

        Raises:
            ConfigError: If the place cannot be used.
            MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
        """
        url = _url_of(where)
        self.folder = Path(str(url.database)).parent if _is_sqlite(url) else None
        self._name = _name_of(url)
        with self._opening():
            self._engine = open_sqlite(url) if _is_sqlite(url) else open_postgres(url)
        # SQLAlchemy's log would have the rows at DEBUG: not for others to read.
        logging.getLogger("sqlalchemy.engine.Engine.register").addFilter(_above_debug)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        self._write = threading.Lock()  # fairer among threads than SQLite's polling
        self._closed = False

    def is_made(self) -> bool:
        """Return whether a register stands here in the newest schema.

        Raises:
            ConfigError: If that cannot be told.
        """
        with self._opening(), self._engine.connect() as connection:
            return _version(connection) == HEAD

    def upgrade(self, keys: Keys) -> None:
        """Bring the schema to its newest form; *keys* seal what an older one kept plain.

        Raises:
            ConfigError: If that fails, or a newer Elision wrote the database.
        """
        with self._opening():
            if not self.is_made():
                with _MIGRATING, self._writer.begin() as connection:
                    self._lock(connection)
                    if _version(connection) != HEAD:
                        _migrate(connection, keys)
            if self.folder is not None:
                sweep_free_pages(self._engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees what any process has written by now.

        Raises:
            GuardError: If the database fails or is closed.
        """
        with self._told(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction as the only writer of all; what it did is on the disk at its end.

        Raises:
            GuardError: If the database fails or is closed; then nothing was written.
        """
        with self._told(), self._write, self._writer.begin() as connection:
            self._lock(connection)
            yield connection

    def epoch(self, tenant: str) -> tuple[int, float | None]:
        """Return the tenant's epoch and when the clock next raises it; 0 for one never heard of.

        Asked on every request, so on SQLite it goes past SQLAlchemy's statements (10 µs of 65).

        Raises:
            GuardError: If the database fails or is closed.
        """
        with self._told():
            if self.folder is None:
                with self._engine.connect() as connection:
                    rows = connection.execute(text(_EPOCH + ":tenant"), {"tenant": tenant}).all()
                return (rows[0][0], rows[0][1]) if rows else (0, None)
            with closing(self._engine.raw_connection()) as direct:
                cursor = direct.cursor()
                found = cursor.execute(_EPOCH + "?", (tenant,)).fetchall()
                cursor.close()
            return found[0] if found else (0, None)

    def sweep(self) -> None:
        """Leave no trace of what has been deleted, as far as the database can.

        Raises:
            GuardError: If the database fails or is closed, or readers are in the way.
        """
        with self._told(), self._write:
            if self.folder is None:
                sweep_dead_rows(self._engine)
            else:
                empty_log(self._engine)

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._closed = True
        self._engine.dispose()

    def _lock(self, connection: Connection) -> None:
        if self.folder is None:
            become_the_writer(connection)

    @contextmanager
    def _told(self) -> Iterator[None]:
        if self._closed:
            raise GuardError("the register is closed; open it again")
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as exc:
            reason = reason_of(exc)
            advice = next((f"; {do}" for sign, do in _ADVICE.items() if sign in reason), "")
            raise GuardError(f"the register's database failed: {reason}{advice}") from exc

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigError(
                f"the register {self._name!r} cannot be opened: {exc.strerror}"
            ) from exc
        except (SQLAlchemyError, sqlite3.Error) as exc:
            raise ConfigError(
                f"the register {self._name!r} cannot be opened: {reason_of(exc)}; "
                "name another place, or move this one away"
            ) from exc


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


def _url_of(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    wanted = "write sqlite:////PATH or postgresql+psycopg://HOST/DATABASE"
    try:
        url = make_url(where)
    except ArgumentError as exc:
        raise ConfigError(f"the register's URL cannot be read; {wanted}") from exc
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"the register's URL has the scheme {url.drivername!r}; {wanted}")
    if _is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise ConfigError(f"the register's URL names no file; {wanted}")
    return url


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _migrate(connection: Connection, keys: Keys) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config(attributes={"connection": connection, "keys": keys})
    config.set_main_option("script_location", "elision.guards.register:migrations")
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise ConfigError(
            f"the register stands at schema {_version(connection)!r}, which this version does "
            f"not know (newest known: {HEAD!r}); install the Elision that wrote it"
        ) from exc
