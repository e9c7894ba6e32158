"""Unit vectors by id, one row after another: what every search ends in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from elision.memory.index.places import Places

if TYPE_CHECKING:
    from elision.memory.index.vectors import Ids, Vectors


class Rows:
    """The vectors of an index. Not thread-safe.

    Args:
        dim: Their width.
        capacity: Rows to have room for at first.
    """

    def __init__(self, dim: int, *, capacity: int = 0) -> None:
        self.places = Places()
        self._matrix: Vectors = np.zeros((capacity, dim), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def matrix(self) -> Vectors:
        """The vectors, in the order of `ids`; a view."""
        return self._matrix[: len(self)]

    @property
    def ids(self) -> Ids:
        """Their ids; a view."""
        return self.places.ids

    def put(self, ids: Ids, rows: Vectors) -> Ids:
        """Add unit *rows*, or replace those of known ids; return their places."""
        places = self.places.put(ids.tolist())
        if len(self) > len(self._matrix):
            wider = np.zeros((max(len(self), 2 * len(self._matrix)), rows.shape[1]), np.float32)
            wider[: len(self._matrix)] = self._matrix
            self._matrix = wider
        self._matrix[places] = rows
        return places

    def drop(self, ids: Iterable[int]) -> tuple[Ids, Ids]:
        """Remove those of *ids* that are known; see `Places.drop` for what is returned.

        No byte of them is left: the rows past the new end are zero.
        """
        before = len(self)
        holes, movers = self.places.drop(ids)
        self._matrix[holes] = self._matrix[movers]
        self._matrix[len(self) : before] = 0
        return holes, movers

    @classmethod
    def of(cls, ids: Ids, matrix: Vectors) -> Rows:
        """Return the rows *matrix*, which is taken over, under *ids*, each given once."""
        self = cls(matrix.shape[1])
        self.places = Places.holding(ids)
        self._matrix = matrix
        return self
