"""Codes of vectors in lists by their nearest centroid, of which a search reads a few."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from math import ceil, sqrt
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elision.memory.index.codes import Asked, bitmap, coded, faiss, step_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.codes import Chosen
    from elision.memory.index.rows import Rows
    from elision.memory.index.vectors import Ids, Vectors

RECALL: Final = 0.98
"""Share of the true ten nearest that a search must find; held against two standard errors."""
LEAST_RECALL: Final = 0.97
"""Share below which what was tuned no longer holds."""
_K: Final = 10
_LISTS: Final = 4
_SAMPLE, _ROUNDS = 16, 4
"""Vectors per centroid and rounds of k-means: a quarter of a second per 25,000 vectors; more
lists are read where the centroids are worse, which the tuning sees to."""
_TUNED_BY: Final = 64
"""Queries of each kind."""
_WORTH: Final = 0.5
"""Share of the lists above which reading everything is as quick."""
_SAME: Final = 1e-3
"""A centroid this near to a vector, in cosine, is as good as a copy of it."""
_CHECKED, _WINDOW = 128, 32
"""One search in so many is also answered from all lists; of the last so many of these the mean
recall is held against `LEAST_RECALL`."""
_LEAST, _AHEAD = 256, 4
"""Rows that a search takes from the codes and compares themselves: so many, or 4 k."""
_CHUNK: Final = 4096


class Inverted:
    """faiss's IVF over the codes of `Rows`, by place. Searches may share it; changes may not.

    How many lists are read is tuned on queries of four kinds, since one kind proves nothing of
    another: rows that it holds, rows blurred, points between two rows, and random directions. From
    then on one search in 128 is compared with its answer from all lists, and more lists are read
    when too little was found; no query is kept for this.

    A centroid is a mean, and that of a list with one member is this member: when vectors are
    removed, centroids that they may show through are taken anew from what remains.

    Args:
        rows: What is searched; `put` and `drop` tell what became of them.
        trained: What `arrays` returned for the same rows; None: train and tune.
    """

    def __init__(self, rows: Rows, trained: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._rows = rows
        self._dim = rows.matrix.shape[1]
        self._n = 0
        self._step = step_of(self._dim)
        self._checks: deque[float] = deque(maxlen=_WINDOW)
        self._n_searches = 0
        self._counting = Lock()
        centroids = None if trained is None else trained["centroids"]
        n = len(rows)
        self._n_lists = min(n, int(_LISTS * sqrt(n))) if centroids is None else len(centroids)
        self._quantizer: Any = faiss.IndexFlatIP(self._dim)
        self._faiss: Any = faiss.IndexIVFScalarQuantizer(
            self._quantizer, self._dim, self._n_lists,
            faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT, False,
        )  # fmt: skip
        if trained is None:
            self._train()
            self.n_probed = self._tuned()
        else:
            self._restore(trained)

    @property
    def exact(self) -> bool:
        """Whether it reads all lists."""
        return self.n_probed >= self._n_lists

    @property
    def worthwhile(self) -> bool:
        """Whether it reads so much less than everything that it is quicker."""
        return self.n_probed < _WORTH * self._n_lists

    def put(self, places: Ids) -> None:
        """Take over the rows at *places*, new ones at the end among them."""
        self._remove(places[places < self._n])
        self._add(places)
        self._n = len(self._rows)

    def drop(self, holes: Ids, movers: Ids) -> None:
        """Follow `Rows.drop`, which returned these."""
        n = len(self._rows)
        past = np.arange(n, self._n)
        self._remove(np.concatenate([holes, past]))
        self._add(holes)
        self._n = n

    def candidates(self, query: Vectors, k: int, chosen: Chosen) -> Ids:
        """Return places among which most of the *k* nearest of the *chosen* are, and *k* if it can.

        Reads as many more lists as the *chosen* are fewer than all and *k* is more than the ten
        that it was tuned for.
        """
        n_chosen = self._n if chosen is None else int(np.count_nonzero(chosen))
        share = max(1, n_chosen) / max(1, self._n)
        wide = min(self._n_lists, ceil(self.n_probed / share * max(1.0, k / _K)))
        asked, wanted = Asked.of(query).codes, max(_LEAST, _AHEAD * k)
        found = self._found(asked, wanted, wide, chosen)
        if wide < self._n_lists and (len(found) < k or (chosen is None and self._checking())):
            all_of_them = self._found(asked, wanted, self._n_lists, chosen)
            if len(found) >= k:
                self._compare(found, all_of_them, query, k)
            return all_of_them
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `__init__` takes as *trained*."""
        lists = np.zeros(self._n, dtype=np.int64)
        for number in range(self._n_lists):
            lists[self._members(number)] = number
        probed = np.array([self.n_probed], dtype=np.int64)
        return {"centroids": self._centroids().copy(), "lists": lists, "n_probed": probed}

    # --- training --------------------------------------------------------------------------------

    def _train(self) -> None:
        clustering = self._faiss.cp
        clustering.niter, clustering.max_points_per_centroid = _ROUNDS, _SAMPLE
        clustering.min_points_per_centroid = 1  # it would complain on stderr
        self._faiss.train(self._rows.matrix)
        self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)
        self.put(np.arange(len(self._rows)))

    def _restore(self, trained: Mapping[str, NDArray[Any]]) -> None:
        self._quantizer.add(np.ascontiguousarray(trained["centroids"], dtype=np.float32))
        self._faiss.train(self._rows.matrix[:1])
        self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)
        self._n = len(self._rows)
        self._add(np.arange(self._n), np.ascontiguousarray(trained["lists"], dtype=np.int64))
        self.n_probed = int(trained["n_probed"][0])

    def _tuned(self) -> int:
        """Return how many lists to read for `RECALL`, told by the worst of the four kinds."""
        n_probed = 1
        for asked in self._kinds():
            scores = asked @ self._rows.matrix.T
            k = min(_K, self._n)
            edge = np.partition(scores, -k, axis=1)[:, -k]
            while n_probed < self._n_lists and self._misses(asked, scores, edge, n_probed):
                n_probed += ceil(n_probed / 4)
        return min(n_probed, self._n_lists)

    def _misses(self, asked: Vectors, scores: Vectors, edge: Vectors, n_probed: int) -> bool:
        recalls = []
        for one, row in enumerate(asked):
            found = self._found(Asked.of(row).codes, _LEAST, n_probed, None)
            hits = np.count_nonzero(scores[one][found] >= edge[one] - 1e-6)
            recalls.append(min(1.0, hits / min(_K, self._n)))
        return float(np.mean(recalls) - 2 * np.std(recalls) / sqrt(len(recalls))) < RECALL

    def _kinds(self) -> Iterator[Vectors]:
        random = np.random.default_rng(0)
        held = self._rows.matrix
        one, two = (held[random.choice(self._n, min(_TUNED_BY, self._n))] for _ in range(2))
        noise = random.normal(size=one.shape).astype(np.float32) / np.float32(sqrt(self._dim))
        for rows in (one, one + noise, one + two, noise):
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            yield (rows / np.maximum(lengths, np.float32(1e-9))).astype(np.float32)

    # --- checks ----------------------------------------------------------------------------------

    def _checking(self) -> bool:
        with self._counting:
            self._n_searches += 1
            return self._n_searches % _CHECKED == 0

    def _compare(self, found: Ids, everything: Ids, query: Vectors, k: int) -> None:
        scores = self._rows.matrix[everything] @ query
        best = everything[np.argpartition(scores, -k)[-k:]]
        with self._counting:
            self._checks.append(float(np.isin(best, found).mean()))
            full = len(self._checks) == _WINDOW
            if full and sum(self._checks) / _WINDOW < LEAST_RECALL:
                self.n_probed = min(self._n_lists, 2 * self.n_probed)
                self._checks.clear()

    # --- lists -----------------------------------------------------------------------------------

    def _found(self, asked: Vectors, wanted: int, n_probed: int, chosen: Chosen) -> Ids:
        sel = {} if chosen is None else {"sel": bitmap(chosen)}
        parameters = faiss.SearchParametersIVF(nprobe=n_probed, **sel)
        _, places = self._faiss.search(asked, min(wanted, self._n), params=parameters)
        found: Ids = places[0][places[0] >= 0]  # -1 stands where nothing was found
        return found

    def _add(self, places: Ids, lists: Ids | None = None) -> None:
        for start in range(0, len(places), _CHUNK):
            some = np.ascontiguousarray(places[start : start + _CHUNK])
            codes = coded(self._rows.matrix[some], self._step)
            if lists is None:
                self._faiss.add_with_ids(codes, some)
            else:
                given = np.ascontiguousarray(lists[start : start + _CHUNK])
                pointers = (faiss.swig_ptr(one) for one in (codes, some, given))
                self._faiss.add_core(len(some), *pointers)

    def _remove(self, places: Ids) -> None:
        if not len(places):
            return
        gone = self._faiss.reconstruct_batch(places)
        gone /= np.maximum(np.linalg.norm(gone, axis=1, keepdims=True), 1e-9)
        shown = (self._centroids() @ gone.T).max(axis=1) >= 1 - _SAME
        lists = {self._list(one) for one in places.tolist()} | set(np.flatnonzero(shown).tolist())
        self._faiss.remove_ids(faiss.IDSelectorArray(places))
        for number in lists:
            self._centre(number)

    def _centroids(self) -> NDArray[np.float32]:
        flat = faiss.rev_swig_ptr(self._quantizer.get_xb(), self._n_lists * self._dim)
        return np.asarray(flat).reshape(self._n_lists, self._dim)

    def _list(self, place: int) -> int:
        return int(self._faiss.direct_map.get(place)) >> 32

    def _members(self, number: int) -> Ids:
        lists = self._faiss.invlists
        size = lists.list_size(number)
        members: Ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy() if size else _NONE
        return members

    def _centre(self, number: int) -> None:
        members = self._members(number)
        centroid = np.zeros(self._dim, dtype=np.float32)
        if len(members):
            codes = self._faiss.reconstruct_batch(members)
            centroid = codes.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._centroids()[number] = centroid / (np.linalg.norm(centroid) or 1.0)


_NONE: Final[Any] = np.empty(0, dtype=np.int64)
