"""An index over the vectors of one partition of the store: derived from it, and disposable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from elision.errors import ConfigError, MissingExtraError, RequestError, ShapeError
from elision.memory.index.lock import SharedLock
from elision.memory.index.vectors import unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from elision.memory.index.codes import Chosen, Codes
    from elision.memory.index.inverted import Inverted
    from elision.memory.index.rows import Rows
    from elision.memory.index.vectors import Ids, Vectors

CODES_FROM: Final = 2_000
"""Vectors from which codes are read first: below, all of them lie in the processor's cache."""
IVF_FROM: Final = 200_000
"""Vectors from which lists are read instead of everything: there a scan of the codes takes 4 ms
(384 wide, one thread), and finds the very nearest."""
_FEW: Final = 64
"""One id in so many: of so few allowed each is looked up."""


class VectorIndex:
    """Vectors by id, searched by cosine; any thread may call.

    Exact while it holds fewer than *ivf_from* vectors, and wherever few ids are allowed: all
    vectors are read as 8-bit codes, and those that may be among the nearest as they are. From
    *ivf_from* it reads lists around centroids, tuned to find 98 of 100 of the true ten nearest,
    and trained anew when it has doubled; below half of it, it is exact again, and it stays exact
    where lists are not worth it. Searches go on while it trains. What is removed is in none of its
    bytes, which is why it is no graph (HNSW). Without faiss it compares every vector: as exact,
    and slower.

    Args:
        dim: Width of the vectors.
        ivf_from: Vectors from which it reads lists.
        codes_from: Vectors from which it reads codes.

    Raises:
        ConfigError: If one of them is less than 1.
        MissingExtraError: If numpy is not installed.
    """

    def __init__(self, dim: int, *, ivf_from: int = IVF_FROM, codes_from: int = CODES_FROM) -> None:
        if dim < 1 or ivf_from < 1 or codes_from < 1:
            raise ConfigError(
                f"dim is {dim}, ivf_from {ivf_from}, codes_from {codes_from}; each at least 1"
            )
        self.dim = dim
        self._ivf_from = ivf_from
        self._codes_from = codes_from
        self._rows = _rows(dim)
        self._sieve: Codes | Inverted | None = None
        self._last: tuple[Ids, NDArray[np.bool_]] | None = None
        self._trained_on = 0
        self._lock = SharedLock()
        self._mutation = Lock()  # held while it trains, when searches still share the other

    @classmethod
    def of(
        cls, ids: Ids, rows: Vectors, arrays: Mapping[str, NDArray[Any]], *, ivf_from: int
    ) -> VectorIndex:
        """Return the index that `arrays` was taken from, training nothing.

        Args:
            ids: The array ``ids``, each once.
            rows: The array ``vectors``; unit, and taken over without a copy.
            arrays: The others.
            ivf_from: See the class.
        """
        from elision.memory.index.inverted import Inverted
        from elision.memory.index.rows import Rows

        self = cls(rows.shape[1], ivf_from=ivf_from)
        self._rows = Rows.of(ids, rows)
        self._trained_on = len(ids)
        if "centroids" in arrays:
            self._sieve = Inverted(self._rows, arrays)
        else:
            self._fit()
        return self

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, one: object) -> bool:
        return one in self._rows.places

    @property
    def exact(self) -> bool:
        """Whether an unfiltered search finds the very nearest now."""
        return self._sieve is None or self._sieve.exact

    def build(self, ids: Iterable[int], vectors: ArrayLike) -> None:
        """Hold *vectors* under *ids* and nothing else; see `add` for both and what is raised."""
        numbers, rows = self._checked(ids, vectors)
        with self._mutation:
            built = _rows(self.dim)
            built.put(numbers, rows)
            with self._lock.exclusive():
                self._rows, self._sieve, self._last = built, None, None
            self._trained_on = 0
            self._fit()

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
                    self._last = None
                    places = self._rows.put(numbers, rows)
                    if self._sieve is not None:
                        self._sieve.put(places)
            self._fit()

    def remove(self, ids: Iterable[int]) -> int:
        """Remove those of *ids* that are in it and return how many were."""
        numbers = _numbers(ids)
        with self._mutation:
            with self._lock.exclusive():
                self._last = None
                before = len(self._rows)
                holes, movers = self._rows.drop(numbers.tolist())
                if self._sieve is not None:
                    self._sieve.drop(holes, movers)
                dropped = before - len(self._rows)
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that must be kept of it, in which nothing that was removed is left.

        Returns:
            ``ids`` and ``vectors``, row by row, and what was trained, if anything was: copies.
        """
        with self._mutation, self._lock.shared():
            arrays: dict[str, NDArray[Any]] = {
                "ids": self._rows.ids.copy(),
                "vectors": self._rows.matrix.copy(),
            }
            return arrays if self._sieve is None else arrays | self._sieve.arrays()

    def _nearest(self, row: Vectors, k: int, allowed: Ids | None) -> list[tuple[int, float]]:
        from elision.memory.index.nearest import nearest

        rows = self._rows
        k = min(k, len(rows))
        if not k:
            return []
        places = self._candidates(row, k, allowed)
        if places is None:
            return nearest(rows.ids, rows.matrix, row, k)
        return nearest(rows.ids[places], rows.matrix[places], row, k) if len(places) else []

    def _candidates(self, row: Vectors, k: int, allowed: Ids | None) -> Ids | None:
        """Return the places to compare; None: all."""
        if allowed is not None and len(allowed) * _FEW <= len(self._rows):
            return self._rows.places.of({*allowed.tolist()})
        chosen: Chosen = None if allowed is None else self._chosen(allowed)
        if self._sieve is not None:
            return self._sieve.candidates(row, k, chosen)
        return None if chosen is None else chosen.nonzero()[0]

    def _chosen(self, allowed: Ids) -> NDArray[np.bool_]:
        """Return which places are *allowed*, from memory if it is the very array asked for last."""
        last = self._last
        if last is not None and last[0] is allowed:
            return last[1]
        chosen = self._rows.places.chosen(allowed)
        if not allowed.flags.writeable:
            self._last = (allowed, chosen)
        return chosen

    def _fit(self) -> None:
        """Code, train, train anew or go back, where the number of vectors asks for it."""
        n = len(self._rows)
        if self._trained_on and 2 * n < self._ivf_from:
            self._take(None)
            self._trained_on = 0
        if not _has_faiss():
            return
        if n >= self._ivf_from and n >= 2 * self._trained_on:
            self._take(_trained(self._rows))
            self._trained_on = n
        elif self._sieve is None and n >= self._codes_from:
            self._take(_codes(self._rows))

    def _take(self, sieve: Codes | Inverted | None) -> None:
        with self._lock.exclusive():
            self._sieve = sieve

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


def _rows(dim: int) -> Rows:
    try:
        from elision.memory.index.rows import Rows
    except ImportError as exc:
        raise MissingExtraError(exc.name or "numpy", extra="local") from exc
    return Rows(dim)


@cache
def _has_faiss() -> bool:
    return find_spec("faiss") is not None


def _codes(rows: Rows) -> Codes:
    from elision.memory.index.codes import Codes

    return Codes(rows)


def _trained(rows: Rows) -> Codes | Inverted:
    """Return lists over *rows*; codes, where lists would have to be read to no gain."""
    from elision.memory.index.inverted import Inverted

    lists = Inverted(rows)
    return lists if lists.worthwhile else _codes(rows)
