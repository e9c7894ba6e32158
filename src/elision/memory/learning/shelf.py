"""Entries read within a transaction, so that what is decided on them is decided on what stands."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from elision.errors import ElisionError, NotFoundError, StoreError
from elision.memory.bodies import Place
from elision.memory.drafts import may_show
from elision.memory.index.vectors import WIDTH, from_bytes
from elision.memory.learning.entries import ADVICE, Entry, from_record
from elision.memory.learning.states import State
from elision.memory.reading import WHOLE, chunks, marks, record_of, spelt
from elision.memory.rooms import Rooms
from elision.memory.schema import vectors

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.records import Record, Scope
    from elision.memory.store import Store

_log = logging.getLogger(__name__)


class Shelf:
    """The entries of a store as one transaction sees them.

    What cannot be read, has expired or may not be shown is not there; the log names its id.

    Args:
        connection: Of that transaction.
        store: The store.
    """

    def __init__(self, connection: Connection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self._now = store.clock()

    def of(self, scope: Scope, states: Collection[State]) -> tuple[Entry, ...]:
        """Return a namespace's entries in *states*, oldest first, with their vectors."""
        bodies, vault = self._store.bodies, self._store.keys.vault
        place = Rooms(self._connection, bodies, vault).find(scope)
        if place is None or not states:
            return ()
        where = f"r.space = ? AND r.kind = ? AND r.state IN {marks(states)}"
        values = (place.space, ADVICE, *(state.value for state in states))
        found = self._entries(scope.tenant, self._rows(where, values))
        # What an index or a cache would say is not asked: these are the rows themselves.
        return tuple(e for e in found if e.scope == scope and e.state in states)

    def find(self, tenant: str, ids: Iterable[str]) -> tuple[Entry, ...]:
        """Return those of *ids* that are *tenant*'s, oldest first, with their vectors."""
        rows = [
            row
            for some in chunks(sorted(set(ids)))
            for row in self._rows(f"r.id IN {marks(some)} AND s.tenant = ?", (*some, tenant))
        ]
        return tuple(self._entries(tenant, rows))

    def one(self, tenant: str, id_: str) -> Entry:
        """Return an entry.

        Raises:
            NotFoundError: If *tenant* has none of that id.
        """
        for entry in self.find(tenant, (id_,)):
            return entry
        raise NotFoundError("this tenant has no entry of that id", code="entry_not_found")

    def _rows(self, where: str, values: Sequence[object]) -> Sequence[Any]:
        statement = spelt(self._connection, f"{WHOLE} WHERE {where} ORDER BY r.id")
        return self._connection.exec_driver_sql(statement, tuple(values)).all()

    def _entries(self, tenant: str, rows: Sequence[Any]) -> Iterator[Entry]:
        known = self._vectors(rows)
        for row in rows:
            entry = self._entry(record_of(row, self._store.bodies), known.get(row[0]))
            if entry is not None and entry.scope.tenant == tenant:
                yield entry

    def _entry(self, record: Record, vector: Vectors | None) -> Entry | None:
        if record.expires_at is not None and record.expires_at <= self._now:
            return None
        words = (record.text, dict(record.value))
        if not may_show(self._store.screen, record.scope.tenant, *words):
            return None
        try:
            return from_record(record, vector)
        except StoreError:
            _log.warning("the record %s keeps no readable entry and is not shown", record.id)
            return None

    def _vectors(self, rows: Sequence[Any]) -> Mapping[int, Vectors]:
        places = {row[0]: Place(row[11], row[2], row[13]) for row in rows}
        found: dict[int, Vectors] = {}
        for some in chunks(sorted(places)):
            for rid, data in self._connection.execute(
                select(vectors.c.rid, vectors.c.data).where(vectors.c.rid.in_(some))
            ):
                plain = self._store.bodies.open(places[rid], rid, "vector", bytes(data))
                found[rid] = _row(plain)
        return found


def _row(plain: bytes) -> Vectors:
    try:
        rows = from_bytes(plain, max(1, len(plain) // WIDTH))
    except ElisionError:
        raise StoreError("a stored vector is damaged; write its record anew") from None
    vector: Vectors = rows[0]
    return vector
