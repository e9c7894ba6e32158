"""The rows of ``spaces`` within one write: found, made, and left when nothing lies there."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, bindparam, delete, insert, select, text, update

from elision.memory.bodies import Bodies, Place, dumped
from elision.memory.journal import get_meta, put_meta
from elision.memory.reading import chunks
from elision.memory.records import Scope
from elision.memory.schema import episodes, records, spaces

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.crypto.vault import Vault


# Made once: making a statement takes longer than running it.
_FIND: Final = select(spaces.c.id, spaces.c.key_id).where(
    spaces.c.tenant == bindparam("whose"), spaces.c.digest == bindparam("which")
)
_COUNTER: Final = text("SELECT seq FROM sqlite_sequence WHERE name = :name")


class Rooms:
    """The namespaces' rows, for the only writer; lives as long as its transaction.

    Args:
        connection: The transaction.
        bodies: Seals the labels.
        vault: Makes the digest by which a namespace is found.

    Attributes:
        retired: Keys to be destroyed once the transaction is committed.
        left: Tenants of whose namespaces some went.
    """

    def __init__(self, connection: Connection, bodies: Bodies, vault: Vault) -> None:
        self._connection = connection
        self._bodies = bodies
        self._vault = vault
        self.retired: list[str] = []
        self.left: set[str] = set()

    def find(self, scope: Scope) -> Place | None:
        """Return the row of *scope*'s namespace."""
        given = {"whose": scope.tenant, "which": self._digest(scope)}
        row = self._connection.execute(_FIND, given).one_or_none()
        return None if row is None else Place(scope.tenant, row.id, row.key_id)

    def enter(self, scope: Scope) -> Place:
        """Return the row of *scope*'s namespace, made if absent."""
        if (known := self.find(scope)) is not None:
            return known
        [number] = next_numbers(self._connection, spaces.c.id, 1)
        place = Place(scope.tenant, number, self._bodies.new_key(scope.tenant))
        body = self._bodies.seal(place, 0, "space", dumped(list(scope.namespace)))
        values = {"id": number, "tenant": scope.tenant, "digest": self._digest(scope)}
        self._connection.execute(insert(spaces).values(**values, body=body, key_id=place.key_id))
        return place

    def of(self, rid: int) -> Place:
        """Return where record *rid* lies."""
        query = select(spaces.c.tenant, spaces.c.id, spaces.c.key_id).join(records)
        return Place(*self._connection.execute(query.where(records.c.rid == rid)).one())

    def reseal(self, space: int) -> None:
        """Seal what lies in *space* under a new key; the old one is destroyed after the commit.

        In a store that is not sealed, do nothing.
        """
        old = self._bodies.reseal(self._connection, space)
        if old is not None:
            self._retire([old])

    def leave(self, numbers: Collection[int]) -> int:
        """Drop those of *numbers* in which no record lies, and their keys; return how many.

        One that episodes refer to keeps its row, and loses its labels.
        """
        n_left = 0
        for some in chunks(sorted(numbers)):
            n_left += self._leave(some)
        if n_left:
            put_meta(
                self._connection, "spaces", str(int(get_meta(self._connection, "spaces") or 0) + 1)
            )
        return n_left

    def _leave(self, numbers: Collection[int]) -> int:
        used = select(records.c.space).where(records.c.space.in_(numbers))
        query = select(spaces.c.id, spaces.c.tenant, spaces.c.key_id)
        query = query.where(spaces.c.id.in_(numbers), spaces.c.id.not_in(used))
        empty = self._connection.execute(query).all()
        told = select(episodes.c.space).where(episodes.c.space.in_([row.id for row in empty]))
        kept = set(self._connection.scalars(told.distinct()))
        for row in empty:
            one = spaces.c.id == row.id
            if row.id in kept:
                blank = {"body": b"", "digest": secrets.token_hex(32), "key_id": None}
                self._connection.execute(update(spaces).where(one).values(**blank))
            else:
                self._connection.execute(delete(spaces).where(one))
        self._retire([row.key_id for row in empty if row.key_id is not None])
        self.left |= {row.tenant for row in empty}
        return len(empty)

    def _retire(self, key_ids: list[str]) -> None:
        """Note which keys are to be destroyed, so that it is done even after a crash."""
        if key_ids:
            self.retired += key_ids
            waiting = (get_meta(self._connection, "retired") or "").split()
            put_meta(self._connection, "retired", " ".join([*waiting, *key_ids]))

    def _digest(self, scope: Scope) -> str:
        return self._vault.digest("memory space", scope.tenant, dumped(list(scope.namespace)))


def next_numbers(connection: Connection, column: Column[int], n: int) -> range:
    """Return *n* numbers for *column*'s table that were never given before.

    Taken before the rows are made, because what is sealed is bound to its row. The caller is the
    only writer, so nobody takes the same.
    """
    table = column.table.name
    if connection.dialect.name == "sqlite":
        last = connection.scalar(_COUNTER, {"name": table}) or 0
        return range(last + 1, last + 1 + n)
    given = text(
        "SELECT min(v), max(v) FROM (SELECT nextval(pg_get_serial_sequence(:t, :c)) AS v "
        "FROM generate_series(1, :n)) AS taken"
    )
    first, last = connection.execute(given, {"t": table, "c": column.name, "n": n}).one()
    return range(first, last + 1)
