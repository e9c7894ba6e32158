"""The recycle matrix: for every token, what was likeliest to follow it when it was last scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elision.errors import ShapeError
from elision.middleware.speculation.base import Draft

UNWRITTEN: Final = -1
"""Stands where no token is known; the known ones of a row come first."""

_LEAST_PROB: Final = 2.0**-24  # float16's least above 0, which means unknown


class RecycleMatrix:
    """The k likeliest successors of every token, by the latest forward that scored the token.

    Lives for a pool of requests that may share it, on the engine's thread. It holds what a model
    would have said, guarded or not: it is never copied, persisted, logged or returned.

    Attributes:
        vocab_size: Rows.
        k: Successors per row.

    Source: Luo et al. 2024, arXiv:2408.08696. Changed: a row never written says so and proposes
    nothing; probabilities are kept beside the tokens; the order of writes is fixed.
    """

    def __init__(self, vocab_size: int, k: int = 8) -> None:
        self.vocab_size = vocab_size
        self.k = k
        self._store: tuple[NDArray[np.int32], NDArray[np.float16]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held; 0 before the first write."""
        return sum(part.nbytes for part in self._store) if self._store else 0

    def row(self, token: int) -> tuple[list[int], list[float]]:
        """Return what may follow *token*, best first, and how probable it was.

        Returns:
            Tokens, and as many probabilities (0 if unknown); both empty if never written.
        """
        if self._store is None:
            return [], []
        ids: list[int] = self._store[0][token].tolist()
        probs: list[float] = self._store[1][token].tolist()
        if ids[-1] == UNWRITTEN:
            n = ids.index(UNWRITTEN)
            return ids[:n], probs[:n]
        return ids, probs

    def rows(self, tokens: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        """Return copies of several rows, `UNWRITTEN` included; shape ``(n, k)`` each."""
        if self._store is None:
            shape = len(tokens), self.k
            return np.full(shape, UNWRITTEN, np.int32), np.zeros(shape, np.float16)
        at = np.asarray(tokens, np.intp)
        return self._store[0][at], self._store[1][at]

    def update(
        self,
        tokens: Sequence[int],
        ids: ArrayLike,
        probs: ArrayLike | None = None,
        order: Iterable[int] | None = None,
    ) -> None:
        """Write the successors of *tokens*; of a token's several rows the last in *order* stays.

        Args:
            tokens: Whose rows; any may occur again.
            ids: Their successors, best first, `UNWRITTEN` behind; shape ``(n, k)``.
            probs: As many probabilities; None, NaN and what is not above 0 in a row's place of
                an unknown token mean unknown.
            order: Indices into *tokens*; those left out are not written. All, as they stand, if
                None. See `write_order`.

        Raises:
            ShapeError: If *ids* or *probs* have another shape.
        """
        ids = np.asarray(ids, np.int32)
        known = _probabilities(probs, ids)
        for what, rows in (("ids", ids), ("probs", known)):
            if rows.shape != (len(tokens), self.k):
                raise ShapeError(what, want=(len(tokens), self.k), got=rows.shape)
        last = {tokens[i]: i for i in (range(len(tokens)) if order is None else order)}
        if not last:
            return
        assert min(last) >= 0, "a token below 0 would be another's row"
        self._store = self._store or self._allocate()
        at, source = np.fromiter(last, np.intp), np.fromiter(last.values(), np.intp)
        self._store[0][at], self._store[1][at] = ids[source], known[source]

    def seed(self, tokens: Sequence[int], ids: ArrayLike, probs: ArrayLike | None = None) -> None:
        """Write the rows of a prompt; a token's last occurrence stays. See `update`."""
        self.update(tokens, ids, probs)

    def clear(self) -> None:
        """Forget every row, and give the memory back."""
        self._store = None

    def _allocate(self) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        shape = self.vocab_size, self.k
        return np.full(shape, UNWRITTEN, np.int32), np.zeros(shape, np.float16)

    def __repr__(self) -> str:
        return f"RecycleMatrix(vocab_size={self.vocab_size}, k={self.k}, nbytes={self.nbytes})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a recycle matrix is never copied nor persisted; open another one")


def _probabilities(probs: ArrayLike | None, ids: NDArray[np.int32]) -> NDArray[np.float16]:
    if probs is None:
        return np.zeros(ids.shape, np.float16)
    given = np.asarray(probs, np.float32)
    if given.shape != ids.shape:
        raise ShapeError("probs", want=ids.shape, got=given.shape)
    kept = np.clip(given, _LEAST_PROB, 1.0)
    return np.where((ids == UNWRITTEN) | np.isnan(given), 0.0, kept).astype(np.float16)


def write_order(draft: Draft, path: Sequence[int]) -> list[int]:
    """Return the nodes of *draft* in the order in which their rows are written.

    Rejected nodes breadth first, then the visited ones, the root first: what was scored behind the
    true text stays.

    Args:
        draft: What was scored; node 0 is its root.
        path: The visited nodes, the root first.
    """
    visited = set(path)
    return [node for node in _breadth_first(draft.parents) if node not in visited] + list(path)


def _breadth_first(parents: Sequence[int]) -> list[int]:
    children: list[list[int]] = [[] for _ in range(len(parents) + 1)]
    for index, parent in enumerate(parents):
        children[parent].append(index + 1)
    nodes = [0]
    for node in nodes:  # grows as it is read
        nodes.extend(children[node])
    return nodes
