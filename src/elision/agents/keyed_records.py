"""Records by their keys within a write: also those that have expired or may not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from elision.memory.reading import chunks
from elision.memory.schema import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elision.memory.records import Scope
    from elision.memory.store import Store
    from elision.memory.writing import Writing


def rids_of(
    store: Store, writing: Writing, scope: Scope, kind: str, keys: Iterable[str] | None
) -> list[int]:
    """Return the numbers of the records of a kind in exactly *scope*.

    A framework that deletes what a forget target hides must not be told that it is gone while it
    is there; so nothing is screened here, and nothing is read.

    Args:
        store: Theirs.
        writing: A transaction of it.
        scope: Where.
        kind: Theirs.
        keys: Theirs; None: all.
    """
    place = writing.rooms.find(scope)
    if place is None:
        return []
    query = select(records.c.rid).where(records.c.space == place.space, records.c.kind == kind)
    if keys is None:
        return list(writing.connection.scalars(query))
    digests: Sequence[str] = [store.key_digest(scope.tenant, key) for key in dict.fromkeys(keys)]
    return [
        rid
        for some in chunks(digests)
        for rid in writing.connection.scalars(query.where(records.c.key.in_(some)))
    ]
