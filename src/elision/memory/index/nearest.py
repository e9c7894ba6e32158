"""The k nearest of some rows, in an order that no arrangement of the rows can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.vectors import Ids, Vectors

SPARE: Final = 16
"""Rows beyond the k wanted that are compared exactly rather than sifted first."""


def margin(dim: int) -> float:
    """Return how far below the k-th float32 score a row may lie and still be among the k nearest.

    Twice the rounding of a float32 dot product of unit rows, at most ``dim`` times 2^-24 in any
    order of summing, and 8 steps for their lengths.
    """
    return 2 * (dim + 8) * 2.0**-24


def cosines(rows: Vectors, query: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each of *rows*, shape ``(N, D)``, with *query*, shape ``(D,)``.

    Products are exact in float64 and each row is summed in the same order, so equal rows score
    equally wherever they stand, which neither BLAS nor faiss promises.
    """
    sums: NDArray[np.float64] = np.multiply(rows, query, dtype=np.float64).sum(axis=1)
    return sums.clip(-1.0, 1.0)


def kth(scores: NDArray[np.float32], k: int) -> float:
    """Return the *k*-th greatest of *scores*, of which there are at least so many."""
    return float(np.partition(scores, -k)[-k])


def nearest(ids: Ids, rows: Vectors, query: Vectors, k: int) -> list[tuple[int, float]]:
    """Return the *k* nearest as (id, cosine), greatest cosine first, equal ones by id."""
    if len(ids) > k + SPARE:
        scores = rows @ query
        close = scores >= kth(scores, k) - margin(len(query))
        ids, rows = ids[close], rows[close]
    exact = cosines(rows, query)
    order = np.lexsort((ids, -exact))[:k]
    return list(zip(ids[order].tolist(), exact[order].tolist(), strict=True))
