"""The journal of changes, by which every process's index follows what any process writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, text

from elision.memory.schema import changes, meta

if TYPE_CHECKING:
    from sqlalchemy import Connection

KEPT: Final = 20_000
"""Changes that an index may be behind and still catch up; beyond, it is built anew."""
# Made once: making a statement takes longer than running it.
_CHANGE, _LAST = insert(changes), select(func.max(changes.c.generation))
_GET_META: Final = select(meta.c.value).where(meta.c.name == bindparam("which"))
_PUT_META: Final = text(
    "INSERT INTO meta (name, value) VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


def put_meta(connection: Connection, name: str, value: str) -> None:
    """Set one of the store's own settings."""
    connection.execute(_PUT_META, {"name": name, "value": value})


def get_meta(connection: Connection, name: str) -> str | None:
    """Return one of the store's own settings."""
    found: str | None = connection.scalar(_GET_META, {"which": name})
    return found


class Journal:
    """What one transaction changed; written at its end."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._rows: dict[int, dict[str, Any]] = {}
        self._anew = False

    def note(self, tenant: str, rids: Iterable[int], *, gone: bool = False) -> None:
        """Note that records were written or are gone; the last word on each counts."""
        self._rows |= {rid: {"tenant": tenant, "rid": rid, "gone": gone} for rid in rids}

    def begin_anew(self, tenants: Iterable[str]) -> None:
        """Have every index of *tenants* built anew: nothing that it holds is right any more."""
        self._rows = {-n: {"tenant": one, "rid": 0, "gone": True} for n, one in enumerate(tenants)}
        self._anew = True

    @property
    def touched(self) -> frozenset[str]:
        """Tenants whose records were changed."""
        return frozenset(row["tenant"] for row in self._rows.values())

    def write(self, connection: Connection) -> None:
        """Append what was noted, and let go of what is older than anybody needs."""
        if not self._rows:
            return
        stamp = secrets.randbits(63)
        connection.execute(_CHANGE, [row | {"stamp": stamp} for row in self._rows.values()])
        last = connection.scalar(_LAST) or 0
        if self._anew:
            put_meta(connection, "floor", str(last))
        elif last % self._kept < len(self._rows):
            self._trim(connection, last - self._kept)

    def _trim(self, connection: Connection, floor: int) -> None:
        """Forget changes up to *floor*, but each tenant's last, which is its generation."""
        if floor <= 0:
            return
        last = select(func.max(changes.c.generation)).group_by(changes.c.tenant)
        old = changes.c.generation <= floor
        connection.execute(delete(changes).where(old, changes.c.generation.not_in(last)))
        put_meta(connection, "floor", str(floor))
