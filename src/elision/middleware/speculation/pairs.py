"""Recycled rows by the last two tokens: fewer, but they know more of where they stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypeAlias

from numpy.typing import NDArray

from elision.middleware.speculation.matrix import RecycleMatrix

Pair: TypeAlias = tuple[int, int]
"""Two neighbouring tokens of a text, the earlier first."""

PLACES: Final = 16_384
"""Pairs that have a row by default: about 3 MB with their names."""


class PairMatrix:
    """The k likeliest successors of pairs of tokens, for the pairs that were scored last.

    Lives and is kept as `RecycleMatrix` is. When every place is taken, the pair whose place is
    oldest loses it.

    Args:
        k: Successors per row.
        places: Most pairs.

    Source: our own; the matrix of Token Recycling (arXiv:2408.08696) knows one token.
    """

    def __init__(self, k: int = 8, *, places: int = PLACES) -> None:
        self._places = places
        self._rows = RecycleMatrix(places, k)
        self._place: dict[Pair, int] = {}
        self._pairs: list[Pair] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._place)

    @property
    def nbytes(self) -> int:
        """Bytes held, about; 0 before the first write."""
        return self._rows.nbytes + 150 * len(self._place)

    def row(self, pair: Pair) -> tuple[list[int], list[float]]:
        """Return what may follow *pair*, as `RecycleMatrix.row` does."""
        place = self._place.get(pair)
        return ([], []) if place is None else self._rows.row(place)

    def update(
        self,
        pairs: Sequence[Pair],
        ids: NDArray[Any],
        probs: NDArray[Any],
        order: Sequence[int] | None = None,
    ) -> None:
        """Write the rows of *pairs*, as `RecycleMatrix.update` does."""
        last = {pairs[i]: i for i in (range(len(pairs)) if order is None else order)}
        kept = list(last.items())[-self._places :]
        at = [self._find(pair) for pair, _ in kept]
        source = [i for _, i in kept]
        self._rows.update(at, ids[source], probs[source])

    def _find(self, pair: Pair) -> int:
        """Return the place of *pair*, its own or one that it takes."""
        place = self._place.get(pair)
        if place is not None:
            return place
        place = self._next
        self._next = (place + 1) % self._places
        if place < len(self._pairs):
            del self._place[self._pairs[place]]
            self._pairs[place] = pair
        else:
            self._pairs.append(pair)
        self._place[pair] = place
        return place

    def clear(self) -> None:
        """Forget every row, and give the memory back."""
        self._rows.clear()
        self._place.clear()
        self._pairs.clear()
        self._next = 0

    def __repr__(self) -> str:
        return f"PairMatrix(places={self._places}, n={len(self)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a matrix of pairs is never copied nor persisted; open another one")
