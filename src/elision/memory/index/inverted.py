"""Vectors in lists by their nearest centroid, of which a search reads a few."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elision.memory.index.nearest import among, candidates, faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.nearest import Ids, Vectors

RECALL: Final = 0.98
"""Share of the true ten nearest that a search must find; held against two standard errors."""
_K: Final = 10
_PROBES: Final = 200
_LISTS: Final = 4
_SAMPLE, _ROUNDS = 16, 4
"""Vectors per centroid and rounds of k-means: a quarter of a second per 25,000 vectors; more
lists are read where the centroids are worse, which the tuning sees to."""
_SAME: Final = 1e-3
"""A centroid this near to a vector, in cosine, is as good as a copy of it."""


class Inverted:
    """faiss's IVF-flat, trained on the vectors it starts with. Not thread-safe.

    A centroid is a mean, and that of a list with one member is this member: when vectors are
    removed, centroids that they may show through are taken anew from what remains.

    Args:
        ids: What it starts with.
        rows: Their unit vectors, shape ``(N, D)``; ``4 sqrt(N)`` lists are made of them.
    """

    exact = False
    few = 2000
    """Allowed ids up to which comparing with each of them is the quicker way, and exact."""

    def __init__(self, ids: Ids, rows: Vectors) -> None:
        self._dim = rows.shape[1]
        self._n_lists = min(len(ids), int(_LISTS * sqrt(len(ids))))
        self._quantizer: Any = faiss.IndexFlatIP(self._dim)
        self._faiss: Any = faiss.IndexIVFFlat(
            self._quantizer, self._dim, self._n_lists, faiss.METRIC_INNER_PRODUCT
        )
        clustering = self._faiss.cp
        clustering.niter, clustering.max_points_per_centroid = _ROUNDS, _SAMPLE
        clustering.min_points_per_centroid = 1  # it would complain on stderr
        self._faiss.train(rows)
        self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)
        self._faiss.add_with_ids(rows, ids)
        self.n_probed = self._tuned(rows)

    def add(self, ids: Ids, rows: Vectors) -> None:
        """Add unit *rows* under *ids*, none of which is in it."""
        self._faiss.add_with_ids(rows, ids)

    def remove(self, ids: Ids) -> None:
        """Remove *ids*, each of which is in it, and what the centroids show of them."""
        gone = self.rows(ids)
        shown = (self._centroids() @ gone.T).max(axis=1) >= 1 - _SAME
        lists = {self._list(one) for one in ids.tolist()} | set(np.flatnonzero(shown).tolist())
        self._faiss.remove_ids(faiss.IDSelectorArray(ids))
        for number in lists:
            self._centre(number)

    def rows(self, ids: Ids) -> Vectors:
        """Return the vectors of *ids*, each of which is in it."""
        rows: Vectors = self._faiss.reconstruct_batch(ids)
        return rows

    def candidates(self, query: Vectors, k: int, allowed: Ids | None) -> Ids:
        """Return ids among which most of the *k* nearest of the *allowed* are, and *k* if it can.

        Reads as many more lists as the *allowed* are fewer than all and *k* is more than the ten
        that it was tuned for.
        """
        share = 1.0 if allowed is None else min(1.0, len(allowed) / max(1, self._faiss.ntotal))
        wide = min(self._n_lists, ceil(self.n_probed / share * max(1.0, k / _K)))
        selector = None if allowed is None else among(allowed)
        found = candidates(self._faiss, query, k, _reading(wide, selector))
        if len(found) >= k or wide == self._n_lists:
            return found
        return candidates(self._faiss, query, k, _reading(self._n_lists, selector))

    def serialize(self) -> bytes:
        """Return faiss's own bytes of it."""
        data: bytes = faiss.serialize_index(self._faiss).tobytes()
        return data

    def _tuned(self, rows: Vectors) -> int:
        """Return how many lists to read for `RECALL`, told by some of its own vectors."""
        size = min(_PROBES, len(rows))
        asked = rows[np.random.default_rng(0).choice(len(rows), size, replace=False)]
        k = min(_K + 1, len(rows))  # each finds itself first, which proves nothing
        truth, _ = faiss.knn(asked, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
        n_probed = 1
        while n_probed < self._n_lists and self._misses(asked, truth, n_probed):
            n_probed += ceil(n_probed / 4)
        return min(n_probed, self._n_lists)

    def _misses(self, asked: Vectors, truth: Vectors, n_probed: int) -> bool:
        scores, _ = self._faiss.search(asked, truth.shape[1], params=_reading(n_probed, None))
        found = scores[:, 1:] >= truth[:, -1:] - 1e-5
        recalls = found.mean(axis=1)
        error = recalls.std() / sqrt(len(recalls))
        return bool(recalls.mean() - 2 * error < RECALL)

    def _centroids(self) -> NDArray[np.float32]:
        flat = faiss.rev_swig_ptr(self._quantizer.get_xb(), self._n_lists * self._dim)
        return np.asarray(flat).reshape(self._n_lists, self._dim)

    def _list(self, one: int) -> int:
        return int(self._faiss.direct_map.get(one)) >> 32

    def _centre(self, number: int) -> None:
        lists = self._faiss.invlists
        size = lists.list_size(number)
        centroid = np.zeros(self._dim, dtype=np.float32)
        if size:
            centroid = self.rows(faiss.rev_swig_ptr(lists.get_ids(number), size).copy()).mean(0)
        self._centroids()[number] = centroid / (np.linalg.norm(centroid) or 1.0)


def _reading(n_probed: int, selector: Any) -> Any:
    if selector is None:
        return faiss.SearchParametersIVF(nprobe=n_probed)
    return faiss.SearchParametersIVF(nprobe=n_probed, sel=selector)
