"""Figures of a store: how much lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from elision.memory.database import MemoryDatabase

_RECORDS: Final = (
    "SELECT COUNT(*), COUNT(v.rid), COALESCE(SUM(LENGTH(r.body)), 0), "
    "COALESCE(SUM(LENGTH(v.data)), 0), "
    "COALESCE(SUM(CASE WHEN r.expires_at <= ? THEN 1 ELSE 0 END), 0), COUNT(DISTINCT r.space) "
    "FROM spaces s JOIN records r ON r.space = s.id LEFT JOIN vectors v ON v.rid = r.rid"
)
_NAMES: Final = ("records", "vectors", "body_bytes", "vector_bytes", "expired", "namespaces")


def figures(database: MemoryDatabase, tenant: str | None, now: float) -> Mapping[str, float]:
    """Return figures of *tenant*'s part, or of all: the database's own size too.

    ``records`` counts the expired ones too, which are there until they are swept.
    """
    mine = "" if tenant is None else " WHERE s.tenant = ?"
    values = (now,) if tenant is None else (now, tenant)
    [row] = database.rows(_RECORDS + mine, values)
    found = {name: float(number) for name, number in zip(_NAMES, row, strict=True)}
    if tenant is None:
        [[tenants]] = database.rows("SELECT COUNT(DISTINCT tenant) FROM spaces")
        found |= {"tenants": float(tenants), "file_bytes": float(database.size())}
    return found
