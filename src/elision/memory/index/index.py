"""An index over the vectors of one partition of the store: derived from it, and disposable."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Final

from elision.errors import ConfigError, MissingExtraError, RequestError, ShapeError
from elision.memory.index.lock import SharedLock
from elision.memory.index.vectors import unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from elision.memory.index.flat import Flat
    from elision.memory.index.inverted import Inverted
    from elision.memory.index.nearest import Ids, Vectors

IVF_FROM: Final = 50_000
"""Vectors from which lists are read instead of everything: there a scan takes 3 ms (384 wide, one
thread)."""


class VectorIndex:
    """Vectors by id, searched by cosine; any thread may call.

    Exact while it holds fewer than *ivf_from* vectors, and wherever few ids are allowed. From there
    it reads lists around centroids, tuned to find 98 of 100 of the true ten nearest, and trained
    anew when it has doubled; below half of *ivf_from* it is exact again. Searches go on while it
    trains. What is removed is in none of its bytes, which is why it is no graph (HNSW).

    Args:
        dim: Width of the vectors.
        ivf_from: Vectors from which it reads lists.

    Raises:
        ConfigError: If either is less than 1.
        MissingExtraError: If faiss is not installed.
    """

    def __init__(self, dim: int, *, ivf_from: int = IVF_FROM) -> None:
        if dim < 1 or ivf_from < 1:
            raise ConfigError(f"dim is {dim} and ivf_from is {ivf_from}; both must be at least 1")
        self.dim = dim
        self._ivf_from = ivf_from
        self._ids: set[int] = set()
        self._within: Flat | Inverted = _flat(dim)
        self._trained_on = 0
        self._lock = SharedLock()
        self._mutation = Lock()  # held while it trains, when searches still share the other

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, one: object) -> bool:
        return one in self._ids

    @property
    def exact(self) -> bool:
        """Whether an unfiltered search finds the very nearest now."""
        return self._within.exact

    def build(self, ids: Iterable[int], vectors: ArrayLike) -> None:
        """Hold *vectors* under *ids* and nothing else; see `add` for both and what is raised."""
        numbers, rows = self._checked(ids, vectors)
        with self._mutation:
            self._put_in_place(numbers, rows)

    def add(self, ids: Iterable[int], vectors: ArrayLike) -> None:
        """Add *vectors*, scaled as by `unit`; one under a known id takes the older one's place.

        Args:
            ids: Not negative, each once.
            vectors: Shape ``(N, dim)``, row by row those of *ids*.

        Raises:
            ShapeError: If there are not as many vectors as ids, or not *dim* wide.
            RequestError: If an id or a vector is none; then nothing was added.
        """
        numbers, rows = self._checked(ids, vectors)
        with self._mutation:
            if len(numbers):
                with self._lock.exclusive():
                    self._drop(numbers)
                    self._within.add(numbers, rows)
                    self._ids.update(numbers.tolist())
            self._fit()

    def remove(self, ids: Iterable[int]) -> int:
        """Remove those of *ids* that are in it and return how many were."""
        numbers = _numbers(ids)
        with self._mutation:
            with self._lock.exclusive():
                dropped = self._drop(numbers)
            self._fit()
        return dropped

    def search(
        self, query: ArrayLike, k: int, allowed: Iterable[int] | None = None
    ) -> list[tuple[int, float]]:
        """Return the *k* nearest as (id, cosine), greatest cosine first, equal ones by id.

        Args:
            query: Shape ``(dim,)`` or ``(1, dim)``; of any length but 0.
            k: Most to return; fewer come back only where there are no more.
            allowed: Ids to choose from, unknown ones passed over; None stands for all.

        Raises:
            ShapeError: If *query* is not one row of *dim*.
            RequestError: If *query* has no direction or *k* is less than 1.
        """
        row = self._query(query)
        if k < 1:
            raise RequestError(f"k is {k}; it must be at least 1", param="k")
        chosen = None if allowed is None else _numbers(allowed)
        with self._lock.shared():
            return self._nearest(row, k, chosen)

    def serialize(self) -> bytes:
        """Return faiss's own bytes of it, in which nothing that was removed is left."""
        with self._lock.shared():
            return self._within.serialize()

    def _nearest(self, row: Vectors, k: int, allowed: Ids | None) -> list[tuple[int, float]]:
        from elision.memory.index.nearest import nearest

        k = min(k, len(self._ids))
        if not k:
            return []
        if allowed is not None and len(allowed) <= self._within.few:
            found = _numbers(self._ids.intersection(allowed.tolist()))
        else:
            found = self._within.candidates(row, k, allowed)
        return nearest(found, self._within.rows(found), row, k) if len(found) else []

    def _drop(self, ids: Ids) -> int:
        known = self._ids.intersection(ids.tolist())
        if known:
            self._within.remove(_numbers(known))
            self._ids -= known
        return len(known)

    def _fit(self) -> None:
        """Train, train anew or go back to exact, where the number of vectors asks for it."""
        n = len(self._ids)
        if self._within.exact:
            due = n >= self._ivf_from
        else:
            due = n >= 2 * self._trained_on or 2 * n < self._ivf_from
        if due:
            ids = _numbers(sorted(self._ids))
            self._put_in_place(ids, self._within.rows(ids))

    def _put_in_place(self, ids: Ids, rows: Vectors) -> None:
        within: Flat | Inverted
        if len(ids) < self._ivf_from:
            within = _flat(self.dim)
            within.add(ids, rows)
        else:
            within = _inverted(ids, rows)
        with self._lock.exclusive():
            self._within, self._ids = within, set(ids.tolist())
            self._trained_on = len(ids)

    def _checked(self, ids: Iterable[int], vectors: ArrayLike) -> tuple[Ids, Vectors]:
        import numpy as np

        numbers = _numbers(ids)
        if not len(numbers) and not np.size(vectors):
            return numbers, np.empty((0, self.dim), dtype=np.float32)
        rows = unit(vectors, dim=self.dim)
        if len(rows) != len(numbers):
            raise ShapeError("vectors", want=(len(numbers), self.dim), got=rows.shape)
        if len(np.unique(numbers)) != len(numbers):
            raise RequestError("an id is given twice in one call", param="ids")
        return numbers, rows

    def _query(self, query: ArrayLike) -> Vectors:
        rows = unit(query, dim=self.dim)
        if len(rows) != 1:
            raise ShapeError("the query", want=(1, self.dim), got=rows.shape)
        row: Vectors = rows[0]
        return row


def _numbers(ids: Iterable[int]) -> Ids:
    import numpy as np

    given = ids if isinstance(ids, np.ndarray) else np.array(list(ids))
    if not given.size:
        return np.empty(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= 2**63:
        raise RequestError("ids are whole numbers from 0 to 2^63 - 1", param="ids")
    return np.ascontiguousarray(given, dtype=np.int64)


def _flat(dim: int) -> Flat:
    try:
        from elision.memory.index.flat import Flat
    except ImportError as exc:
        raise MissingExtraError(exc.name or "faiss", extra="local") from exc
    return Flat(dim)


def _inverted(ids: Ids, rows: Vectors) -> Inverted:
    from elision.memory.index.inverted import Inverted

    return Inverted(ids, rows)
