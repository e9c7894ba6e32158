"""PostgreSQL under a store, for several replicas on one database."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL

from elision.errors import ConfigError, MissingExtraError

PATIENCE_S = 10
"""How long a connection, and a writer for another's transaction, is waited for."""


def open_postgres(url: URL, *, name: str) -> Engine:
    """Return an engine on the database that *url* names; nothing is connected yet.

    *name* is that of its log.

    Raises:
        ConfigError: If the URL asks for another driver than psycopg.
        MissingExtraError: If psycopg is not installed.
    """
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigError(
            f"the {name}'s URL has the scheme {url.drivername!r}; write postgresql+psycopg://"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("psycopg", extra="postgres")
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_pre_ping=True,
        max_overflow=-1,
        logging_name=name,
        connect_args={"connect_timeout": PATIENCE_S},
    )


def become_the_writer(connection: Connection, lock: int) -> None:
    """Wait until no other transaction writes; this one is the only writer until it ends.

    *lock* is an advisory lock: of this one database, another for each store that it holds.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({lock})"))


def sweep_dead_rows(engine: Engine, tables: Iterable[str]) -> None:
    """Have the server drop the row versions that erasing from *tables* has left behind."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.execute(text(f"VACUUM {table}"))
