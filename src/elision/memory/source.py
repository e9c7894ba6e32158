"""What indexes are made from: rows in SQL, and the journal of their changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from elision.errors import StoreError
from elision.memory.bodies import Place
from elision.memory.reading import chunks, marks

if TYPE_CHECKING:
    from elision.memory.bodies import Bodies
    from elision.memory.database import MemoryDatabase
    from elision.memory.index.partition import Row

T = TypeVar("T")

_ROWS: Final = (
    "SELECT r.rid, r.space, r.kind, r.state, r.trust, r.expires_at, v.data, s.key_id "
    "FROM spaces s JOIN records r ON r.space = s.id LEFT JOIN vectors v ON v.rid = r.rid "
    "WHERE s.tenant = ?"
)
_VALUES: Final = (
    "SELECT r.rid, r.space, r.body, s.key_id "
    "FROM spaces s JOIN records r ON r.space = s.id WHERE s.tenant = ?"
)


class SqlSource:
    """The store as `elision.memory.index.partition.Source`; any thread may call."""

    def __init__(self, database: MemoryDatabase, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    def generation(self, tenant: str) -> int:
        """Return the number of the last change to the tenant's rows; 0: there never was one."""
        query = "SELECT MAX(generation) FROM changes WHERE tenant = ?"
        return int(self._database.rows(query, (tenant,))[0][0] or 0)

    def stamp(self, tenant: str, generation: int) -> int:
        """Return what tells that change from others of its number elsewhere; 0: it is not kept."""
        query = "SELECT stamp FROM changes WHERE tenant = ? AND generation = ?"
        found = self._database.rows(query, (tenant, generation))
        return int(found[0][0]) if found else 0

    def rows(self, tenant: str) -> Iterator[Row]:
        """Yield every row of *tenant*, all of one moment.

        But for what an erasure seals anew meanwhile: that is yielded as it is then, if it is there.
        """
        return self._rows(tenant)

    def since(
        self, tenant: str, generation: int
    ) -> tuple[Sequence[Row], Sequence[int], int] | None:
        """Return what changed after *generation*; None: the journal no longer reaches so far."""
        query = "SELECT generation, rid FROM changes WHERE tenant = ? AND generation > ?"
        found = self._database.rows(query, (tenant, generation))
        floor = self._database.rows("SELECT value FROM meta WHERE name = 'floor'")
        if not found:
            return (), (), generation
        if floor and generation < int(floor[0][0]):
            return None
        rids = sorted({rid for _, rid in found})
        put = [row for some in chunks(rids) for row in self._rows(tenant, some)]
        gone = {*rids} - {row.rid for row in put}
        return put, sorted(gone), max(number for number, _ in found)

    def values(
        self, tenant: str, rids: Sequence[int] | None
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the JSON of those of *rids* that are there, or of all rows."""
        if rids is None:
            yield from self._values(tenant)
            return
        for some in chunks(rids):
            yield from self._values(tenant, some)

    def _each(
        self, made: Callable[[Any], T], statement: str, tenant: str, rids: Sequence[int] = ()
    ) -> Iterator[T]:
        """Yield what is made of each row of *tenant*, or of those of *rids*."""
        which = f" AND r.rid IN {marks(rids)}" if rids else ""
        for batch in self._database.batches(statement + which, (tenant, *rids)):
            for row in batch:
                try:
                    one = made(row)
                except StoreError:  # its key may be gone because it was sealed anew
                    if self._bodies.keyring is None:
                        raise
                    now = self._database.rows(f"{statement} AND r.rid = ?", (tenant, row[0]))
                    yield from (made(row) for row in now)
                else:
                    yield one

    def _rows(self, tenant: str, rids: Sequence[int] = ()) -> Iterator[Row]:
        import numpy as np

        from elision.memory.index.partition import Row

        def made(found: Any) -> Row:
            rid, space, kind, state, trust, expires_at, data, key_id = found
            vector = None
            if data is not None:
                plain = data
                if key_id is not None:
                    place = Place(tenant, space, key_id)
                    plain = self._bodies.open(place, rid, "vector", bytes(data))
                vector = np.frombuffer(plain, dtype="<f4")
            return Row(rid, space, kind, state, trust, expires_at, vector)

        return self._each(made, _ROWS, tenant, rids)

    def _values(
        self, tenant: str, rids: Sequence[int] = ()
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        def made(found: Any) -> tuple[int, Mapping[str, Any]]:
            rid, space, body, key_id = found
            place = Place(tenant, space, key_id)
            return rid, orjson.loads(self._bodies.open(place, rid, "record", bytes(body)))["value"]

        return self._each(made, _VALUES, tenant, rids)
