"""The k nearest of some rows, in an order that no arrangement of the rows can change."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.int64]
    Vectors: TypeAlias = NDArray[np.float32]

faiss: Any = import_module("faiss")  # its types are the C++ side's, before Python's wrapping

SPARE: Final = 16
"""Rows asked for beyond the k wanted; where they do not reach past a tie, a second pass does."""


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


def nearest(ids: Ids, rows: Vectors, query: Vectors, k: int) -> list[tuple[int, float]]:
    """Return the *k* nearest as (id, cosine), greatest cosine first, equal ones by id."""
    if len(ids) > k + SPARE:
        scores = rows @ query
        kth = np.partition(scores, -k)[-k]
        close = scores >= kth - margin(len(query))
        ids, rows = ids[close], rows[close]
    exact = cosines(rows, query)
    order = np.lexsort((ids, -exact))[:k]
    return list(zip(ids[order].tolist(), exact[order].tolist(), strict=True))


def candidates(index: Any, query: Vectors, k: int, parameters: Any) -> Ids:
    """Return ids from the faiss *index*, the *k* nearest that it can see surely among them.

    All of them, where *parameters* let it see fewer than *k*.
    """
    scores, found = index.search(query[None], min(k + SPARE, index.ntotal), params=parameters)
    ids: Ids = found[0][found[0] >= 0]  # -1 stands where nothing was found
    if len(ids) < k + SPARE:
        return ids
    edge = float(scores[0][k - 1]) - margin(len(query))
    if scores[0][-1] < edge:
        return ids
    within: Ids = index.range_search(query[None], edge, params=parameters)[2]
    return within


def among(allowed: Ids) -> Any:
    """Return faiss's selector for *allowed*: a bitmap where they lie dense, else a hash set."""
    end = int(allowed.max()) + 1
    if end > 64 * len(allowed):
        return faiss.IDSelectorBatch(allowed)
    mask = np.zeros(end, dtype=bool)
    mask[allowed] = True
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
