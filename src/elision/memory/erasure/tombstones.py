"""What may not come back by an import: keyed digests of the keys and contents that were erased."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from elision.memory import schema as t
from elision.memory.erasure.closure import batches

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.crypto.vault import Vault


def key_tombstone(vault: Vault, tenant: str, space_digest: str, key_digest: str) -> str:
    """Return the tombstone of a key in a namespace.

    Args:
        vault: The store's.
        tenant: Whose.
        space_digest: As in ``spaces.digest``.
        key_digest: As in ``records.key``.
    """
    return vault.digest("memory tombstone", tenant, f"{space_digest}:{key_digest}".encode())


def bury(
    connection: Connection, vault: Vault, rids: frozenset[int], *, receipt: str, at: float
) -> int:
    """Leave tombstones of the records *rids*, before they go; return how many are new.

    A content's tombstone is its keyed digest, as in ``records.content``.
    """
    before = connection.scalar(select(func.count()).select_from(t.tombstones)) or 0
    for some in batches(rids):
        query = (
            select(t.spaces.c.tenant, t.spaces.c.digest, t.records.c.key, t.records.c.content)
            .join(t.spaces, t.spaces.c.id == t.records.c.space)
            .where(t.records.c.rid.in_(some))
        )
        rows = [
            {"digest": digest, "tenant": tenant, "at": at, "receipt": receipt}
            for tenant, space, key, content in connection.execute(query)
            for digest in (key_tombstone(vault, tenant, space, key), content)
        ]
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(t.tombstones).on_conflict_do_nothing(), rows)
    return (connection.scalar(select(func.count()).select_from(t.tombstones)) or 0) - before


def buried(connection: Connection, tenant: str, digests: Sequence[str]) -> frozenset[str]:
    """Return those of *digests*, of keys and of contents, that have a tombstone of *tenant*."""
    found: Iterable[str] = ()
    for start in range(0, len(digests), 500):
        some = t.tombstones.c.digest.in_(digests[start : start + 500])
        query = select(t.tombstones.c.digest).where(t.tombstones.c.tenant == tenant, some)
        found = (*found, *connection.scalars(query))
    return frozenset(found)


def revived(connection: Connection, tenant: str, receipt: str) -> int:
    """Return how many records have the content of one that this receipt's erasure took."""
    query = (
        select(func.count())
        .select_from(t.records)
        .join(t.tombstones, t.tombstones.c.digest == t.records.c.content)
        .where(t.tombstones.c.tenant == tenant, t.tombstones.c.receipt == receipt)
    )
    return connection.scalar(query) or 0
