"""Rows to records: by key, by id, by number, and in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from elision.errors import StoreError
from elision.memory.bodies import Place
from elision.memory.records import Record, Scope, Trust

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.bodies import Bodies
    from elision.memory.database import MemoryDatabase

WHOLE: Final = (
    "SELECT r.rid, r.id, r.space, r.kind, r.state, r.trust, r.version, r.created_at, "
    "r.updated_at, r.expires_at, r.body, s.tenant, s.body, s.key_id "
    "FROM records r JOIN spaces s ON s.id = r.space "
)
"""Selects what `record_of` reads."""
LIVE: Final = "(r.expires_at IS NULL OR r.expires_at > ?)"
MOST: Final = 500
"""Values that one statement names."""


def record_of(row: Sequence[Any], bodies: Bodies) -> Record:
    """Return the record that a row of `WHOLE` keeps.

    Raises:
        StoreError: If what is sealed cannot be opened.
    """
    rid, id_, space, kind, state, trust, version, created, updated, expires, body = row[:11]
    place = Place(row[11], space, row[13])
    kept = orjson.loads(bodies.open(place, rid, "record", bytes(body)))
    return Record(
        id=id_,
        scope=Scope(place.tenant, bodies.namespace(place, bytes(row[12]))),
        key=kept["key"],
        kind=kind,
        text=kept["text"],
        value=kept["value"],
        state=state,
        trust=Trust(trust),
        version=version,
        created_at=created,
        updated_at=updated,
        expires_at=expires,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """A record within a write, expired or not.

    Attributes:
        rid: Its number.
        record: It.
        ttl_s: The time to live that it was given.
    """

    rid: int
    record: Record
    ttl_s: float | None


def standing(connection: Connection, tenant: str, id_: str, bodies: Bodies) -> Standing | None:
    """Return the record of that id as it stands until the transaction ends."""
    statement = f"{WHOLE} WHERE r.id = ? AND s.tenant = ?"
    row = connection.exec_driver_sql(spelt(connection, statement), (id_, tenant)).one_or_none()
    if row is None:
        return None
    kept = orjson.loads(bodies.open(Place(tenant, row[2], row[13]), row[0], "record", row[10]))
    return Standing(row[0], record_of(row, bodies), kept.get("ttl_s"))


def spelt(connection: Connection, statement: str) -> str:
    """Return *statement* with the places for values written as the driver wants them."""
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")


def marks(values: Collection[object]) -> str:
    """Return a place for each of *values* in a statement."""
    return "(" + ",".join("?" * len(values)) + ")"


def chunks(values: Sequence[Any], size: int = MOST) -> Iterator[Sequence[Any]]:
    """Yield *values* in runs of at most *size*."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class Reader:
    """Reads records past SQLAlchemy; what has expired is never among them.

    Args:
        database: Where they lie.
        bodies: Opens them.
        clock: Tells the time.
    """

    def __init__(
        self, database: MemoryDatabase, bodies: Bodies, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._bodies = bodies
        self._clock = clock

    def by_key(self, space: int, key_digest: str) -> Record | None:
        """Return the record of that key in a namespace."""
        found = self._where("r.space = ? AND r.key = ?", (space, key_digest))
        return found[0][1] if found else None

    def by_ids(self, tenant: str, ids: Iterable[str]) -> dict[str, Record]:
        """Return those of *ids* that are *tenant*'s, by id."""
        found = dict[str, Record]()
        for some in chunks([*dict.fromkeys(ids)]):
            where = f"r.id IN {marks(some)} AND s.tenant = ?"
            found |= {record.id: record for _, record in self._where(where, (*some, tenant))}
        return found

    def by_rids(self, tenant: str, rids: Sequence[int]) -> dict[int, Record]:
        """Return those of *rids* that are *tenant*'s, by number."""
        found = dict[int, Record]()
        for some in chunks(rids):
            where = f"r.rid IN {marks(some)} AND s.tenant = ?"
            found |= dict(self._where(where, (*some, tenant)))
        return found

    def in_order(
        self,
        tenant: str,
        spaces: Collection[int] | None,
        *,
        kinds: Collection[str] = (),
        states: Collection[str] = (),
        least_trust: int = 0,
        after: str | None = None,
        newest: bool = False,
    ) -> Iterator[Record]:
        """Yield a tenant's records one by one, oldest first.

        All of one moment, but for what an erasure seals anew meanwhile: that is told as it is then.

        Args:
            tenant: Whose.
            spaces: Namespaces; None: all of them.
            kinds: Only these; none: any.
            states: Likewise.
            least_trust: The least.
            after: Only ids beyond this one.
            newest: Whether those that were changed last come first instead.
        """
        where, values = "s.tenant = ? AND r.trust >= ?", list[object]([tenant, least_trust])
        few = spaces is not None and len(spaces) <= MOST
        for column, among in (
            ("r.space", spaces if few else ()),
            ("r.kind", kinds),
            ("r.state", states),
        ):
            if among:
                where += f" AND {column} IN {marks(among)}"
                values += among
        if after is not None:
            where += " AND r.id > ?"
            values.append(after)
        order = "r.updated_at DESC, r.id DESC" if newest else "r.id"
        for row in self._rows(where, values, order):
            if spaces is None or few or row[2] in spaces:
                yield from self._opened(row, where, values)

    def _opened(self, row: Sequence[Any], where: str, values: Sequence[object]) -> list[Record]:
        """Return the record of *row*; as it is now, or none, if it was sealed anew meanwhile."""
        try:
            return [record_of(row, self._bodies)]
        except StoreError:
            if self._bodies.keyring is None:
                raise
            now = self._where(f"{where} AND r.rid = ?", (*values, row[0]))
            return [record for _, record in now]

    def _where(self, where: str, values: Sequence[object]) -> list[tuple[int, Record]]:
        """Return number and record of the rows that are meant.

        Read once more where a key was gone: what it sealed may have been sealed anew meanwhile.
        """
        try:
            return self._read(where, values)
        except StoreError:
            if self._bodies.keyring is None:
                raise
            return self._read(where, values)

    def _read(self, where: str, values: Sequence[object]) -> list[tuple[int, Record]]:
        rows = self._database.rows(f"{WHOLE} WHERE {where} AND {LIVE}", (*values, self._clock()))
        return [(row[0], record_of(row, self._bodies)) for row in rows]

    def _rows(self, where: str, values: Sequence[object], order: str) -> Iterator[Any]:
        statement = f"{WHOLE} WHERE {where} AND {LIVE} ORDER BY {order}"
        for batch in self._database.batches(statement, (*values, self._clock()), size=256):
            yield from batch
