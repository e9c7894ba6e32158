"""Where it is kept what each key has spent: a file beside the register's, or its server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.engine import make_url

from elision.errors import StoreError
from elision.middleware.gateway.limits.schema import HEAD, spent
from elision.sql.database import Database, Layout

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection

    from elision.settings import Settings

LAYOUT: Final = Layout(
    name="ledger",
    migrations="elision.middleware.gateway.limits:migrations",
    head=HEAD,
    version_table="ledger_version",
    lock=0x656C6C69,
    failure=StoreError,
)
FILE: Final = "ledger.db"
"""A file of its own: who settles what was used must not wait for who registers targets."""

_KEPT_S: Final = 400 * 86_400
"""How long a period is kept after it was last added to; longer than any that can still count."""

Entry: TypeAlias = tuple[str, str, str]
"""Tenant, name of the key, period."""


class Ledger:
    """Tokens spent, by tenant, key and period. Thread-safe; any number of processes share one.

    Args:
        where: A path, or a URL.

    Raises:
        ConfigError: If it cannot be opened.
        MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
    """

    def __init__(self, where: str | Path) -> None:
        self._database = Database(where, LAYOUT)
        self._database.upgrade()
        old = and_(spent.c.at < time.time() - _KEPT_S, spent.c.period != "total")
        with self._database.writing() as connection:
            connection.execute(delete(spent).where(old))

    @classmethod
    def of(cls, settings: Settings) -> Ledger:
        """Open the ledger of a server with *settings*; see `place_of`."""
        return cls(place_of(settings))

    def spent(self, entry: Entry) -> int:
        """Return what was spent; 0 for an entry never heard of.

        Raises:
            StoreError: If the database fails or is closed.
        """
        with self._database.reading() as connection:
            return _read(connection, entry)

    def add(self, tokens: Mapping[Entry, int]) -> dict[Entry, int]:
        """Add to each entry; return what is spent now, other processes' share included.

        Raises:
            StoreError: If the database fails or is closed; then nothing was added.
        """
        with self._database.writing() as connection:
            for entry, n in tokens.items():
                _add(connection, entry, n)
            return {entry: _read(connection, entry) for entry in tokens}

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._database.close()


def place_of(settings: Settings) -> str | Path:
    """Return where the ledger lies: on the register's server, or in a file beside its file."""
    url = settings.register_url
    if url is None:
        return settings.home / FILE
    named = make_url(url.get_secret_value())
    if named.get_backend_name() != "sqlite":
        return url.get_secret_value()
    return named.set(database=f"{named.database}-{FILE}").render_as_string(hide_password=False)


def _is(entry: Entry) -> ColumnElement[bool]:
    tenant, key, period = entry
    return and_(spent.c.tenant == tenant, spent.c.key == key, spent.c.period == period)


def _read(connection: Connection, entry: Entry) -> int:
    return int(connection.scalar(select(spent.c.tokens).where(_is(entry))) or 0)


def _add(connection: Connection, entry: Entry, n: int) -> None:
    """Add; no upsert is needed, because a writing transaction is the only one."""
    now: dict[str, Any] = {"at": time.time()}
    grown = update(spent).where(_is(entry)).values(tokens=spent.c.tokens + n, **now)
    if not connection.execute(grown).rowcount:
        tenant, key, period = entry
        row = {"tenant": tenant, "key": key, "period": period, "tokens": n, **now}
        connection.execute(insert(spent).values(**row))
