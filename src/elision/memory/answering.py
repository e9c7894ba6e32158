"""Answers from the store: by key, by id, in order, by similarity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from elision.errors import RequestError
from elision.memory.drafts import may_show_record
from elision.memory.figures import figures
from elision.memory.filters import parse
from elision.memory.opening import Opened
from elision.memory.records import Found, Hit, Namespace, Record, Scope, Trust
from elision.memory.searching import Asked
from elision.memory.spaces import matching

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from elision.memory.index.vectors import Vectors


class Answering(Opened):
    """The reading half of `elision.memory.store.Store`."""

    def get(self, scope: Scope, key: str) -> Record | None:
        """Return the record of that key in exactly that namespace."""
        found = self.spaces.within(scope, deep=False)
        if not found:
            return None
        record = self._reader.by_key(found[0], self.key_digest(scope.tenant, key))
        return record if record is not None and self._may_show(record) else None

    def find(self, tenant: str, ids: Iterable[str]) -> tuple[Record, ...]:
        """Return records in the order of *ids*; those that are not there are left out."""
        wanted = list(ids)
        found = self._reader.by_ids(tenant, wanted)
        records = (found[id_] for id_ in wanted if id_ in found)
        return tuple(record for record in records if self._may_show(record))

    def list(
        self,
        scope: Scope,
        *,
        kinds: Collection[str] = (),
        states: Collection[str] = (),
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int = 100,
        deep: bool = True,
    ) -> tuple[Record, ...]:
        """Return records oldest first.

        Args:
            scope: Where.
            kinds: Only these; none: any.
            states: Likewise.
            where: What the value must be; see `elision.memory.filters`.
            after: Go on after the record of this id, whether it is still there or not.
            limit: Most to return.
            deep: Whether what lies below the namespace is meant too.
        """
        filter_ = parse(where) if where else None
        within = self.spaces.within(scope, deep=deep)
        if not within:
            return ()
        among = None if deep and not scope.namespace else within
        found = self._reader.in_order(scope.tenant, among, kinds=kinds, states=states, after=after)
        shown = (
            record
            for record in found
            if (filter_ is None or filter_.holds(record.value)) and self._may_show(record)
        )
        return tuple(islice(shown, limit))

    def search(
        self,
        scope: Scope,
        query: str | ArrayLike | None,
        k: int = 10,
        *,
        kinds: Collection[str] = (),
        states: Collection[str] = (),
        least_trust: Trust = Trust.UNKNOWN,
        where: Mapping[str, Any] | None = None,
        least_similarity: float | None = None,
        deep: bool = True,
        offset: int = 0,
    ) -> Found:
        """Return what is most similar to *query*: a text, or a vector of shape ``(D,)``.

        None stands for no query: then what was changed last comes first, with or without a text.

        Args:
            scope: Where.
            query: What to compare with.
            k: Most to return.
            kinds: Only these; none: any.
            states: Likewise.
            least_trust: The least.
            where: What the value must be; see `elision.memory.filters`.
            least_similarity: The least cosine; None: any.
            deep: Whether what lies below the namespace is meant too.
            offset: Hits to pass over.

        Raises:
            RequestError: If *query* is a text and the store has no encoder, or an argument is out
                of range.
        """
        asked = Asked(
            scope=scope, kinds=kinds, states=states, least_trust=least_trust, where=where,
            least_similarity=least_similarity, deep=deep,
        )  # fmt: skip
        if query is None:
            return self._searching.newest(asked, k, offset=offset)
        vector = self._query(scope.tenant, query)
        return self._searching.nearest(asked, vector, k, offset=offset)

    def recall(
        self,
        scope: Scope,
        query: str | ArrayLike | None,
        n_tokens: int,
        *,
        count: Callable[[str], int],
        **options: Any,
    ) -> tuple[Hit, ...]:
        """Return the most similar records whose texts fit into *n_tokens*; none is ever cut.

        One that does not fit is passed over, and smaller ones after it may still come.

        Args:
            scope: Where.
            query: As in `search`.
            n_tokens: Most tokens of all texts together.
            count: Tells how many tokens a text has.
            options: As of `search`.
        """
        taken, left = list[Hit](), n_tokens
        options.setdefault("k", 50)
        for hit in self.search(scope, query, **options).hits:
            if (size := count(hit.record.text)) <= left:
                taken.append(hit)
                left -= size
        return tuple(taken)

    def namespaces(
        self,
        tenant: str,
        *,
        prefix: Sequence[str] = (),
        suffix: Sequence[str] = (),
        depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[Namespace, ...]:
        """Return in which namespaces something lies, in order; see `spaces.matching`."""
        names = self.spaces.names(tenant)
        live = (
            "SELECT s.id FROM spaces s WHERE s.tenant = ? AND EXISTS (SELECT 1 FROM records r "
            "WHERE r.space = s.id AND (r.expires_at IS NULL OR r.expires_at > ?))"
        )
        ids = [row[0] for row in self.database.rows(live, (tenant, self.clock()))]
        shown = [names[id_] for id_ in ids if id_ in names and self._may_name(tenant, names[id_])]
        found = matching(shown, prefix=prefix, suffix=suffix, depth=depth)
        return tuple(found[offset : offset + limit])

    def stats(self, tenant: str | None = None) -> Mapping[str, float]:
        """Return figures of a tenant's part, or of the whole; see `elision.memory.figures`."""
        return figures(self.database, tenant, self.clock())

    def _query(self, tenant: str, query: str | ArrayLike) -> Vectors:
        from elision.memory.index.vectors import unit

        if not isinstance(query, str):
            row: Vectors = unit(query)[0]
            return row
        rows = self.encoded(tenant, [query])
        if rows is None:
            raise RequestError(
                "this store has no encoder; search by a vector, or open it with one", param="query"
            )
        first: Vectors = rows[0]
        return first

    def _may_show(self, record: Record) -> bool:
        return may_show_record(self.screen, record)

    def _may_name(self, tenant: str, namespace: Namespace) -> bool:
        screen = self.screen
        return screen is None or all(screen.may_read(tenant, label) for label in namespace)
