"""Where the row of an id lies, in an array that has no gaps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.vectors import Ids

_SPARSE: Final = 64
"""Numbers per id above which a table over all of them costs more than sorting."""


class Places:
    """Ids in the order in which their rows lie. Not thread-safe.

    What is removed is replaced by what lies last, so that nothing else moves.
    """

    def __init__(self) -> None:
        self._at: dict[int, int] = {}
        self._ids: Ids = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, one: object) -> bool:
        return one in self._at

    @property
    def ids(self) -> Ids:
        """The ids; a view."""
        return self._ids[: len(self._at)]

    def put(self, ids: Iterable[int]) -> Ids:
        """Return the places of *ids*, each given once; unknown ones get those after the last."""
        at = self._at
        numbers = list(ids)
        places = np.array([at.setdefault(one, len(at)) for one in numbers], dtype=np.int64)
        if len(at) > len(self._ids):
            wider = np.zeros(max(len(at), 2 * len(self._ids)), dtype=np.int64)
            wider[: len(self._ids)] = self._ids
            self._ids = wider
        self._ids[places] = numbers
        return places

    @classmethod
    def holding(cls, ids: Ids) -> Places:
        """Return the places of *ids*, each given once, in their order; *ids* is taken over."""
        self = cls()
        self._ids, self._at = ids, dict(zip(ids.tolist(), range(len(ids)), strict=True))
        return self

    def drop(self, ids: Iterable[int]) -> tuple[Ids, Ids]:
        """Forget those of *ids* that are known.

        Returns:
            Places that came free, and the places of the rows that belong there now. The rows past
            the new end are nobody's.
        """
        at = self._at
        free = sorted({at.pop(one) for one in set(ids) if one in at})
        n, before = len(at), len(at) + len(free)
        holes = [place for place in free if place < n]
        movers = sorted(set(range(n, before)).difference(free))
        for hole, mover in zip(holes, movers, strict=True):
            one = int(self._ids[mover])
            at[one] = hole
            self._ids[hole] = one
        self._ids[n:before] = 0
        return np.array(holes, dtype=np.int64), np.array(movers, dtype=np.int64)

    def of(self, ids: Iterable[int]) -> Ids:
        """Return the places of those of *ids* that are known."""
        at = self._at
        return np.array([at[one] for one in ids if one in at], dtype=np.int64)

    def chosen(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which places are those of *ids*, unknown ones passed over."""
        return among(self.ids, ids)


def among(values: NDArray[np.integer], chosen: Ids) -> NDArray[np.bool_]:
    """Return which of *values* are one of *chosen*, shape ``(N,)``."""
    if not len(values) or not len(chosen):
        return np.zeros(len(values), dtype=bool)
    if len(chosen) == 1:
        one: NDArray[np.bool_] = values == chosen[0]
        return one
    low, high = int(values.min()), int(values.max())
    if high - low >= _SPARSE * len(values):
        return np.isin(values, chosen)
    table = np.zeros(high - low + 1, dtype=bool)
    table[chosen[(chosen >= low) & (chosen <= high)] - low] = True
    found: NDArray[np.bool_] = table[values - low]
    return found
