"""What indexes are made from: rows in SQL, and the journal of their changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from elision.memory.bodies import Place
from elision.memory.reading import chunks, marks

if TYPE_CHECKING:
    from elision.memory.bodies import Bodies
    from elision.memory.database import MemoryDatabase
    from elision.memory.index.partition import Row

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
        """Yield every row of *tenant*, all of one moment."""
        return self._rows(tenant, _ROWS, (tenant,))

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
        put = [
            row
            for some in chunks(rids)
            for row in self._rows(tenant, f"{_ROWS} AND r.rid IN {marks(some)}", (tenant, *some))
        ]
        gone = {*rids} - {row.rid for row in put}
        return put, sorted(gone), max(number for number, _ in found)

    def values(
        self, tenant: str, rids: Sequence[int] | None
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the JSON of those of *rids* that are there, or of all rows."""
        if rids is None:
            yield from self._values(tenant, _VALUES, (tenant,))
            return
        for some in chunks(rids):
            statement = f"{_VALUES} AND r.rid IN {marks(some)}"
            yield from self._values(tenant, statement, (tenant, *some))

    def _rows(self, tenant: str, statement: str, values: Sequence[object]) -> Iterator[Row]:
        import numpy as np

        from elision.memory.index.partition import Row

        for batch in self._database.batches(statement, values):
            for rid, space, kind, state, trust, expires_at, data, key_id in batch:
                vector = None
                if data is not None:
                    plain = data
                    if key_id is not None:
                        place = Place(tenant, space, key_id)
                        plain = self._bodies.open(place, rid, "vector", bytes(data))
                    vector = np.frombuffer(plain, dtype="<f4")
                yield Row(rid, space, kind, state, trust, expires_at, vector)

    def _values(
        self, tenant: str, statement: str, values: Sequence[object]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for batch in self._database.batches(statement, values):
            for rid, space, body, key_id in batch:
                place = Place(tenant, space, key_id)
                kept = orjson.loads(self._bodies.open(place, rid, "record", bytes(body)))
                yield rid, kept["value"]
