"""Records by their keys within a write: also those that have expired or may not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Column, select

from elision.memory.reading import chunks
from elision.memory.schema import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elision.memory.records import Scope
    from elision.memory.store import Store
    from elision.memory.writing import Writing

T = TypeVar("T")


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
    return _of(records.c.rid, store, writing, scope, kind, keys)


def ids_of(
    store: Store, writing: Writing, scope: Scope, kind: str, keys: Iterable[str]
) -> tuple[str, ...]:
    """Return their ids instead, as an erasure selects them."""
    return tuple(_of(records.c.id, store, writing, scope, kind, keys))


def rids_within(store: Store, writing: Writing, scope: Scope, kind: str, id_: str) -> list[int]:
    """Return the number of the record of that id, if it lies in *scope* or below it."""
    query = select(records.c.rid, records.c.space).where(
        records.c.id == id_, records.c.kind == kind
    )
    spaces = set(store.spaces.within(scope, deep=True))
    return [row.rid for row in writing.connection.execute(query) if row.space in spaces]


def _of(
    column: Column[T],
    store: Store,
    writing: Writing,
    scope: Scope,
    kind: str,
    keys: Iterable[str] | None,
) -> list[T]:
    place = writing.rooms.find(scope)
    if place is None:
        return []
    query = select(column).where(records.c.space == place.space, records.c.kind == kind)
    if keys is None:
        return list(writing.connection.scalars(query))
    digests: Sequence[str] = [store.key_digest(scope.tenant, key) for key in dict.fromkeys(keys)]
    return [
        found
        for some in chunks(digests)
        for found in writing.connection.scalars(query.where(records.c.key.in_(some)))
    ]
