"""The register's database: its layout, and the one question that every request asks of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import text

from elision.errors import GuardError
from elision.guards.register.schema import HEAD
from elision.sql.database import Database, Layout

LAYOUT: Final = Layout(
    name="register",
    migrations="elision.guards.register:migrations",
    head=HEAD,
    version_table="alembic_version",
    lock=0x656C6973,
    shrinking=("target_keys", "reasons", "targets"),
    swept=2,  # before, bodies were not sealed
    failure=GuardError,
)
_EPOCH = "SELECT epoch, due FROM epochs WHERE tenant = "


class RegisterDatabase(Database):
    """Where a register is kept; see `Database`."""

    def __init__(self, where: str | Path) -> None:
        super().__init__(where, LAYOUT)

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
