"""Searches: which rows are meant, which of them are nearest, and those read anew from SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from elision.errors import RequestError
from elision.memory.drafts import may_show_record
from elision.memory.filters import parse
from elision.memory.records import Found, Hit, Record, Scope, Trust

if TYPE_CHECKING:
    from elision.contract import Screen
    from elision.memory.filters import Filter
    from elision.memory.index.partition import Partition
    from elision.memory.index.partitions import Partitions
    from elision.memory.index.vectors import Ids, Vectors
    from elision.memory.reading import Reader
    from elision.memory.spaces import Spaces

Code: TypeAlias = Literal["ok", "unknown_scope", "empty_scope", "filtered_out", "nothing_similar"]

_SPARE: Final = 4
"""Hits read beyond those wanted where a screen may take some away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a search may find.

    Attributes:
        scope: Where.
        kinds: Only these; none: any.
        states: Likewise.
        least_trust: The least.
        where: What the value must be; see `elision.memory.filters`.
        least_similarity: The least cosine; None: any.
        deep: Whether what lies below the namespace is meant too.
    """

    scope: Scope = field(repr=False)
    kinds: Collection[str] = ()
    states: Collection[str] = ()
    least_trust: Trust = Trust.UNKNOWN
    where: Mapping[str, Any] | None = field(default=None, repr=False)
    least_similarity: float | None = None
    deep: bool = True


class Searching:
    """Searches of one store; any thread may call.

    Args:
        partitions: Tell what is near.
        reader: Reads the records: what an index says is never shown unread.
        spaces: The namespaces.
        screen: May this be read?
        clock: Tells the time.
    """

    def __init__(
        self,
        partitions: Partitions,
        reader: Reader,
        spaces: Spaces,
        screen: Screen | None,
        clock: Callable[[], float],
    ) -> None:
        self._partitions = partitions
        self._reader = reader
        self._spaces = spaces
        self._screen = screen
        self._clock = clock

    def nearest(self, asked: Asked, vector: Vectors, k: int, *, offset: int = 0) -> Found:
        """Return the *k* records most similar to *vector* after the first *offset*."""
        begun = time.perf_counter()
        _check(k, offset)
        filter_ = parse(asked.where) if asked.where else None
        within = self._spaces.within(asked.scope, deep=asked.deep)
        if not within:
            return Found((), "unknown_scope", 0, _ms(begun))
        partition = self._partitions.at(asked.scope.tenant)
        allowed = self._select(partition, asked, within, filter_)
        n_allowed = partition.n if allowed is None else len(allowed)
        if not n_allowed:
            return Found((), self._why_none(partition, asked, within), 0, _ms(begun))
        found = self._hits(partition, asked, filter_, vector, k + offset, allowed)
        hits = tuple(found[offset:])
        return Found(hits, "ok" if found else "nothing_similar", n_allowed, _ms(begun))

    def newest(self, asked: Asked, k: int, *, offset: int = 0) -> Found:
        """Return the *k* records that were changed last, after the first *offset*."""
        begun = time.perf_counter()
        _check(k, offset)
        filter_ = parse(asked.where) if asked.where else None
        within = self._spaces.within(asked.scope, deep=asked.deep)
        if not within:
            return Found((), "unknown_scope", 0, _ms(begun))
        hits, n_seen = list[Hit](), 0
        for record in self._reader.in_order(
            asked.scope.tenant,
            self._spaces_or_all(asked, within),
            kinds=asked.kinds,
            states=asked.states,
            least_trust=asked.least_trust,
            newest=True,
        ):
            n_seen += 1
            if self._shown(record, filter_):
                hits.append(Hit(record))
            if len(hits) == k + offset:
                break
        code: Code = "ok" if hits else self._why_empty(asked, within)
        return Found(tuple(hits[offset:]), code, n_seen, _ms(begun))

    def _hits(
        self,
        partition: Partition,
        asked: Asked,
        filter_: Filter | None,
        vector: Vectors,
        wanted: int,
        allowed: Ids | None,
    ) -> list[Hit]:
        """Return *wanted* hits, looking further where some may not be shown."""
        n_asked = wanted + (_SPARE if self._screen else 0)
        while True:
            near = partition.search(vector, n_asked, allowed)
            hits = self._read(asked, filter_, near)[:wanted]
            if len(hits) == wanted or len(near) < n_asked:
                return hits
            if asked.least_similarity is not None and near[-1][1] < asked.least_similarity:
                return hits
            n_asked *= 2

    def _read(
        self, asked: Asked, filter_: Filter | None, near: list[tuple[int, float]]
    ) -> list[Hit]:
        """Read what was found, and leave out what is no longer as the index had it."""
        least = -2.0 if asked.least_similarity is None else asked.least_similarity
        near = [(rid, cosine) for rid, cosine in near if cosine >= least]
        records = self._reader.by_rids(asked.scope.tenant, [rid for rid, _ in near])
        hits = [
            Hit(record, cosine)
            for rid, cosine in near
            if (record := records.get(rid)) is not None
            and self._is_meant(asked, record)
            and self._shown(record, filter_)
        ]
        return sorted(hits, key=lambda hit: (-(hit.similarity or 0.0), hit.record.id))

    def _is_meant(self, asked: Asked, record: Record) -> bool:
        within = asked.scope.holds(record.scope) if asked.deep else asked.scope == record.scope
        return (
            within
            and record.trust >= asked.least_trust
            and (not asked.kinds or record.kind in asked.kinds)
            and (not asked.states or record.state in asked.states)
        )

    def _shown(self, record: Record, filter_: Filter | None) -> bool:
        return (filter_ is None or filter_.holds(record.value)) and may_show_record(
            self._screen, record
        )

    def _select(
        self,
        partition: Partition,
        asked: Asked,
        within: Collection[int],
        filter_: Filter | None = None,
    ) -> Ids | None:
        return partition.select(
            spaces=self._spaces_or_all(asked, within),
            kinds=asked.kinds,
            states=asked.states,
            least_trust=int(asked.least_trust),
            now=self._clock(),
            where=filter_,
        )

    def _spaces_or_all(self, asked: Asked, within: Collection[int]) -> Collection[int] | None:
        return None if asked.deep and not asked.scope.namespace else within

    def _why_none(self, partition: Partition, asked: Asked, within: Collection[int]) -> Code:
        bare = Asked(scope=asked.scope, deep=asked.deep)
        left = self._select(partition, bare, within)
        n_left = partition.n if left is None else len(left)
        return "filtered_out" if n_left else "empty_scope"

    def _why_empty(self, asked: Asked, within: Collection[int]) -> Code:
        among = self._spaces_or_all(asked, within)
        some: Iterator[Record] = self._reader.in_order(asked.scope.tenant, among)
        return "empty_scope" if next(some, None) is None else "filtered_out"


def _check(k: int, offset: int) -> None:
    if k < 1 or offset < 0:
        raise RequestError(f"k is {k} and offset is {offset}; at least 1 and 0", param="k")


def _ms(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3
