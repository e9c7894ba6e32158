"""Vectors as whole numbers of 8 bits: what a scan reads, a quarter of the bytes of float32."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from elision.memory.index.nearest import SPARE, kth, margin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.rows import Rows
    from elision.memory.index.vectors import Ids, Vectors

    Chosen: TypeAlias = NDArray[np.bool_] | None
    """Which places are meant; None: all."""

faiss: Any = import_module("faiss")  # its types are the C++ side's, before Python's wrapping

TOP: Final = 127
"""The greatest code."""
_REACH: Final = 6.0
"""Standard deviations of a number of a random unit vector that a code reaches."""
_ROUGH: Final = 64
"""One row in so many may reach further, and is then compared itself; with more, codes are made
coarser."""
_LEAST, _AHEAD = 256, 4
"""Rows scored before it is told how far down the true nearest may be: so many, or 4 k."""
_SIFTED: Final = 8
"""If one row in so many is allowed, a scan of all is quicker than one that skips the others."""
_CHUNK: Final = 512
"""Rows coded at once: few enough to stay in the cache."""


def step_of(dim: int) -> float:
    """Return what a code of 1 stands for, in random unit vectors."""
    return min(1.0, _REACH / sqrt(dim)) / TOP


def coded(rows: Vectors, step: float) -> Vectors:
    """Return ``round(rows / step)`` as float32, what reaches past `TOP` cut there."""
    codes = rows * np.float32(1 / step)
    np.rint(codes, out=codes)
    return np.clip(codes, -TOP, TOP, out=codes)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query in codes.

    Attributes:
        codes: Shape ``(1, D)``, whole numbers.
        step: What a code of 1 stands for.
        error: Length of what rounding left.
    """

    codes: Vectors
    step: float
    error: float

    @classmethod
    def of(cls, query: Vectors) -> Asked:
        """Return *query*, a unit vector of shape ``(D,)``, in its finest codes."""
        step = float(np.abs(query).max()) / TOP
        codes = coded(query, step)
        error = float(np.linalg.norm(query - codes.astype(np.float64) * step))
        return cls(codes[None], step, error)


class Codes:
    """A scan of `Rows` that surely meets the nearest. Not thread-safe.

    A code is ``round(x / step)``. By Cauchy and Schwarz a score is off by no more than the length
    of what rounding left of the row, and of the query; whatever may so reach the k-th best that
    was seen is compared itself. So codes decide how much is read, and never what is found.

    Args:
        rows: What is scanned; `put` and `drop` tell what became of them.
    """

    exact = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._dim = rows.matrix.shape[1]
        self._step = step_of(self._dim)
        self._faiss: Any = faiss.IndexScalarQuantizer(
            self._dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        self._rough = np.zeros(0, dtype=bool)
        self._error = 0.0
        self.put(np.arange(len(rows)))

    def put(self, places: Ids) -> None:
        """Code the rows at *places*, new ones at the end among them."""
        self._resize()
        self._write(places)
        n = len(self._rows)
        while self._rough.sum() * _ROUGH > n and self._step < 1 / TOP:
            self._step, self._error = min(2 * self._step, 1 / TOP), 0.0
            self._write(np.arange(n))

    def drop(self, holes: Ids, movers: Ids) -> None:
        """Follow `Rows.drop`, which returned these."""
        n = len(self._rows)
        for rows in (self._codes(), self._rough):
            rows[holes] = rows[movers]
            rows[n:] = 0
        self._resize()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return nothing: codes are made from the rows."""
        return {}

    def candidates(self, query: Vectors, k: int, chosen: Chosen) -> Ids:
        """Return places among which the *k* nearest of the *chosen* surely are.

        All of the chosen, where these are few.
        """
        n = len(self._rows)
        n_chosen = n if chosen is None else int(np.count_nonzero(chosen))
        wanted = max(_LEAST, _AHEAD * k)
        if n_chosen <= wanted:
            return np.arange(n) if chosen is None else np.flatnonzero(chosen)
        asked = Asked.of(query)
        scores, found, last = self._best(asked, wanted, chosen, n_chosen)
        least = kth(self._rows.matrix[found[: k + SPARE]] @ query, k)
        edge = self._edge(asked, least)
        found = found[scores >= edge] if last < edge else self._beyond(asked, edge, chosen)
        return self._with_rough(found, chosen)

    def _best(
        self, asked: Asked, wanted: int, chosen: Chosen, n_chosen: int
    ) -> tuple[Vectors, Ids, float]:
        """Return scores and places of *wanted* chosen rows or some fewer, and the last score seen.

        No chosen row that is left out scores more than the last.
        """
        n = len(self._rows)
        if chosen is not None and n_chosen * _SIFTED >= n:
            scores, found = self._scan(asked, min(n, ceil(wanted * n / n_chosen)), None)
            last, kept = float(scores[-1]), chosen[found]
            if kept.sum() * _AHEAD >= wanted:
                return scores[kept], found[kept], last
        scores, found = self._scan(asked, wanted, chosen)
        return scores, found, float(scores[-1])

    def _scan(self, asked: Asked, n: int, chosen: Chosen) -> tuple[Vectors, Ids]:
        scores, places = self._faiss.search(asked.codes, n, params=selecting(chosen))
        return scores[0], places[0]

    def _beyond(self, asked: Asked, edge: float, chosen: Chosen) -> Ids:
        parameters = selecting(chosen)
        found: Ids = self._faiss.range_search(asked.codes, edge - 1, params=parameters)[2]
        return found

    def _edge(self, asked: Asked, least: float) -> int:
        """Return the score below which no row's cosine reaches *least*."""
        error = self._error + asked.error * (1 + self._error) + margin(self._dim)
        return floor((least - error) / (self._step * asked.step))

    def _with_rough(self, found: Ids, chosen: Chosen) -> Ids:
        rough = self._rough if chosen is None else self._rough & chosen
        return np.union1d(found, np.flatnonzero(rough)) if rough.any() else found

    def _write(self, places: Ids) -> None:
        codes, step = self._codes(), self._step
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            rows = self._rows.matrix[some]
            written = coded(rows, step)
            codes[some] = written.astype(np.int8).view(np.uint8) ^ 0x80  # as faiss keeps them
            written *= np.float32(step)
            rows -= written
            rough = np.abs(rows).max(axis=1) > step
            left = np.einsum("ij,ij->i", rows, rows)[~rough]
            self._error = max(self._error, sqrt(float(left.max(initial=0))) + margin(self._dim))
            self._rough[some] = rough

    def _resize(self) -> None:
        n = len(self._rows)
        self._faiss.codes.resize(n * self._dim)
        self._faiss.ntotal = n
        rough = np.zeros(n, dtype=bool)
        n_kept = min(n, len(self._rough))
        rough[:n_kept] = self._rough[:n_kept]
        self._rough = rough

    def _codes(self) -> NDArray[np.uint8]:
        n = self._faiss.ntotal
        flat = faiss.rev_swig_ptr(self._faiss.codes.data(), n * self._dim)
        return np.asarray(flat).reshape(n, self._dim)


def selecting(chosen: Chosen, **more: Any) -> Any:
    """Return faiss's search parameters for the *chosen* places; None where there are none."""
    if chosen is None:
        return None
    return faiss.SearchParameters(sel=bitmap(chosen))


def bitmap(chosen: NDArray[np.bool_]) -> Any:
    """Return faiss's selector of the places that are *chosen*."""
    return faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
