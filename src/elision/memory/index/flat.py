"""Every vector in one row after another: exact, and what is removed is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from elision.memory.index.nearest import among, candidates, faiss

if TYPE_CHECKING:
    from elision.memory.index.nearest import Ids, Vectors

_PER_ROW: Final = 32
"""Rows that a scan passes over in the time in which one is fetched by its id."""


class Flat:
    """faiss's IDMap2 over FlatIP. Not thread-safe.

    Args:
        dim: Width of the vectors.
    """

    exact = True

    def __init__(self, dim: int) -> None:
        self._faiss: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    @property
    def few(self) -> int:
        """Allowed ids up to which comparing with each of them is the quicker way."""
        return int(self._faiss.ntotal) // _PER_ROW

    def add(self, ids: Ids, rows: Vectors) -> None:
        """Add unit *rows* under *ids*, none of which is in it."""
        self._faiss.add_with_ids(rows, ids)

    def remove(self, ids: Ids) -> None:
        """Remove *ids*, each of which is in it."""
        self._faiss.remove_ids(faiss.IDSelectorBatch(ids))

    def rows(self, ids: Ids) -> Vectors:
        """Return the vectors of *ids*, each of which is in it."""
        rows: Vectors = self._faiss.reconstruct_batch(ids)
        return rows

    def candidates(self, query: Vectors, k: int, allowed: Ids | None) -> Ids:
        """Return ids among which the *k* nearest of the *allowed* are."""
        selector = None if allowed is None else faiss.SearchParameters(sel=among(allowed))
        return candidates(self._faiss, query, k, selector)

    def serialize(self) -> bytes:
        """Return faiss's own bytes of it."""
        data: bytes = faiss.serialize_index(self._faiss).tobytes()
        return data
