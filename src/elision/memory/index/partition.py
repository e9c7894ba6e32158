"""One tenant's rows as an index has them: their vectors, and what filters ask of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from elision.memory.index.columns import Columns
from elision.memory.index.facets import Facets, Values
from elision.memory.index.index import IVF_FROM, VectorIndex
from elision.memory.index.lock import SharedLock
from elision.memory.index.places import among
from elision.memory.index.selections import Selection, Selections, key_of
from elision.memory.index.vectors import sound

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from elision.memory.filters import Filter
    from elision.memory.index.vectors import Ids, Vectors

_BATCH: Final = 4096
"""Rows that are taken from the source at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """What an index knows of a record: numbers and codes.

    Attributes:
        rid: The record's number, never given twice.
        space: The namespace's number.
        kind: See `elision.memory.records.Draft`, as for the next two.
        state: Likewise.
        trust: Likewise.
        expires_at: Seconds since 1970; None: never.
        vector: Its unit vector as it is stored, shape ``(D,)``; None if it has none.
    """

    rid: int
    space: int
    kind: str
    state: str
    trust: int
    expires_at: float | None
    vector: Vectors | None = field(default=None, repr=False)


class Source(Protocol):
    """The truth that partitions are made from. Any thread may call."""

    def generation(self, tenant: str) -> int:
        """Return the number of the last change to the tenant's rows."""
        ...

    def stamp(self, tenant: str, generation: int) -> int:
        """Return what tells that change from one of the same number in another store, or in this.

        A store that is put back from a backup gives the same numbers again.
        """
        ...

    def rows(self, tenant: str) -> Iterator[Row]:
        """Yield every row of *tenant*, fetched in batches."""
        ...

    def since(
        self, tenant: str, generation: int
    ) -> tuple[Sequence[Row], Sequence[int], int] | None:
        """Return what changed after *generation*: rows put, ids gone, and the generation now.

        None, if that is too far behind to be told.
        """
        ...

    def values(
        self, tenant: str, rids: Sequence[int] | None
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the JSON of those of *rids* that are there, or of all rows."""
        ...


class Partition:
    """A tenant's vectors and columns in memory; any thread may call.

    Args:
        values: Reads the JSON of rows, for filters over it.
        generation: The change that it is as new as.
        ivf_from: See `VectorIndex`.
    """

    def __init__(self, values: Values, *, generation: int = 0, ivf_from: int = IVF_FROM) -> None:
        self.generation = generation
        self._ivf_from = ivf_from
        self._columns = Columns()
        self._index: VectorIndex | None = None
        self._facets = Facets(values)
        self._selections = Selections()
        self._n_changes = 0
        self._lock = SharedLock()

    @classmethod
    def of(
        cls, columns: Columns, index: VectorIndex | None, values: Values, *, generation: int,
        ivf_from: int = IVF_FROM,
    ) -> Partition:  # fmt: skip
        """Return the partition that holds *columns* and *index*, which are not to be used again."""
        self = cls(values, generation=generation, ivf_from=ivf_from)
        self._columns, self._index = columns, index
        return self

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def n(self) -> int:
        """Rows, with a vector or without."""
        return len(self._columns)

    @property
    def exact(self) -> bool:
        """Whether a search of all of it finds the very nearest now."""
        return self._index is None or self._index.exact

    def fill(self, rows: Iterable[Row]) -> None:
        """Add *rows*, of ids that it does not know, without telling facets: for a new one.

        Raises:
            StoreError: If a vector is not of length 1, or not as wide as the others.
        """
        stream = iter(rows)
        while some := list(islice(stream, _BATCH)):
            with self._lock.exclusive():
                self._put(some)

    def apply(self, put: Sequence[Row], gone: Iterable[int], generation: int) -> None:
        """Take over what changed up to *generation*.

        Raises:
            StoreError: As `fill`; then it must be made anew, some changes may be in it.
        """
        dropped = [*gone]
        # Not under the lock: facets may be reading, and searches without them need not wait.
        self._facets.forget([*dropped, *(row.rid for row in put)])
        with self._lock.exclusive():
            self._n_changes += 1
            self._selections.clear()
            self._drop(dropped)
            for start in range(0, len(put), _BATCH):
                self._put(put[start : start + _BATCH])
            self.generation = generation

    def select(
        self,
        *,
        spaces: Collection[int] | None = None,
        kinds: Collection[str] = (),
        states: Collection[str] = (),
        least_trust: int = 0,
        now: float,
        where: Filter | None = None,
    ) -> Ids | None:
        """Return the ids of the rows that are meant, read-only; None stands for all of them.

        Args:
            spaces: Namespaces; None: any.
            kinds: Kinds; empty: any.
            states: States; empty: any.
            least_trust: Least trust.
            now: Rows that have expired by then, in seconds since 1970, are left out.
            where: What their JSON must be.
        """
        key = key_of(spaces, kinds, states, least_trust, where)
        if (made := self._selections.get(key, now)) is not None:
            return made.ids
        n_changes = self._n_changes
        meeting = self._facets.rids(where) if where is not None and where.conditions else None
        with self._lock.shared():
            chosen = self._columns.mask(
                spaces=spaces, kinds=kinds, states=states, least_trust=least_trust, now=now
            )
            if meeting is not None:
                chosen &= among(self._columns.ids, meeting)
            ids: Ids | None = None if chosen.all() else self._columns.ids[chosen]
            if ids is not None:
                ids.flags.writeable = False
            if n_changes == self._n_changes:
                until = self._columns.first_expiry(chosen)
                self._selections.put(key, Selection(ids, now, until))
            return ids

    def search(
        self, vector: ArrayLike, k: int, allowed: Ids | None = None
    ) -> list[tuple[int, float]]:
        """Return the *k* nearest as (id, cosine); see `VectorIndex.search`.

        Rows without a vector are never found.
        """
        with self._lock.shared():
            return [] if self._index is None else self._index.search(vector, k, allowed)

    def arrays(self) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Return what a snapshot keeps: columns, ids and vectors, and the names of the codes."""
        with self._lock.shared():
            arrays = {name: column.copy() for name, column in self._columns.arrays().items()}
            if self._index is not None:
                arrays |= self._index.arrays()
            return arrays, self._columns.names

    def _put(self, rows: Sequence[Row]) -> None:
        self._columns.put(rows)
        seen = [(row.rid, row.vector) for row in rows if row.vector is not None]
        if self._index is not None and len(seen) < len(rows):
            self._index.remove([row.rid for row in rows if row.vector is None])
        if not seen:
            return
        vectors = sound(
            [vector for _, vector in seen], dim=None if self._index is None else self._index.dim
        )
        if self._index is None:
            self._index = VectorIndex(vectors.shape[1], ivf_from=self._ivf_from)
        self._index.add([rid for rid, _ in seen], vectors)

    def _drop(self, ids: Sequence[int]) -> None:
        self._columns.drop(ids)
        if self._index is not None:
            self._index.remove(ids)


def rebuilt(source: Source, tenant: str, *, ivf_from: int = IVF_FROM) -> Partition:
    """Return the partition of *tenant* as *source* has it now."""
    generation = source.generation(tenant)  # first: what changes meanwhile is told again by `since`
    partition = Partition(values_of(source, tenant), generation=generation, ivf_from=ivf_from)
    partition.fill(source.rows(tenant))
    return partition


def values_of(source: Source, tenant: str) -> Values:
    """Return what reads the JSON of the tenant's rows."""
    return lambda rids: source.values(tenant, rids)
