"""Rows split into a head, which is moved, and a tail, which a few made-up tokens stand for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from elision.middleware.interventions.entropy.minimisation import EPS
from elision.middleware.interventions.entropy.row import FLOOR

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_NODES: Final = np.array([-0.7, -4.0, -9.0, -13.0])
"""Where the nodes lie, in nats from the cut between head and tail; found by measuring."""
_SCORES_AT_ONCE: Final = 1 << 17
"""Scores that are read together: what is made of them stays in a processor's second cache."""
_SAMPLE: Final = 1024
"""Tokens of a row, at the least, that are asked how far Adam's epsilon holds their like back."""


class _Sheets(NamedTuple):
    """What rows that are read together are written into, shape ``(R, V)`` each.

    Attributes:
        tail: Their scores, the best of each at 0.
        masses: e^z of those.
        scores: The tail once more, as numpy sees it.
        weights: The masses, likewise.
        is_head: Whether a score is of the head.
    """

    tail: Tensor
    masses: Tensor
    scores: Array
    weights: Array
    is_head: Array

    def first(self, n_rows: int) -> _Sheets:
        """Return what the first *n_rows* are written into."""
        tail, masses, scores, weights, is_head = self
        return _Sheets(
            tail[:n_rows], masses[:n_rows], scores[:n_rows], weights[:n_rows], is_head[:n_rows]
        )


class _Kept(threading.local):
    """What one thread writes into, step after step: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self._block, self._flags = np.empty((2, 0, 0), np.float32), np.empty((0, 0), np.bool_)

    def sheets(self, n_rows: int, n_scores: int) -> _Sheets:
        """Return sheets for so many rows, their values undefined."""
        import torch

        _, most, width = self._block.shape
        if width != n_scores or most < n_rows:
            self._block = np.empty((2, n_rows, n_scores), np.float32)
            self._flags = np.empty((n_rows, n_scores), np.bool_)
        # As tensors they are not kept: one made in inference mode could not be written to outside.
        scores, weights = self._block[:, :n_rows]
        tail, masses = map(torch.from_numpy, (scores, weights))
        return _Sheets(tail, masses, scores, weights, self._flags[:n_rows])


_KEPT: Final = _Kept()


class Points(NamedTuple):
    """Scores that descend together: the heads of some rows, row by row, then their nodes likewise.

    Attributes:
        scores: Relative to the best of their row, float64, shape ``(K,)``; overwritten.
        owner: The row of each, counted among those rows.
        starts: Where each row's head begins; every row has one.
        n_heads: Points that are tokens.
        n_like: How many tokens each node stands for, shape ``(rows, nodes)``; no whole number, and
            it may be negative.
    """

    scores: Array
    owner: Array
    starts: Array
    n_heads: int
    n_like: Array

    def sums(self, values: Array) -> Array:
        """Return the sum over each row of *values*, of which a node has those of all it is like."""
        nodes = values[self.n_heads :].reshape(self.n_like.shape)
        heads: Array = np.add.reduceat(values[: self.n_heads], self.starts)
        heads += (nodes * self.n_like).sum(1)
        return heads


class Split:
    """A few rows, each split into head and tail.

    Attributes:
        is_row: Whether a row has a distribution.
        nats: Its entropy.
        mean: Its mean score, relative to the best.
    """

    def __init__(self, logits: Tensor, rows: Sequence[int], cut: float) -> None:
        self._rows, self._cut = np.array(rows), cut
        width = logits.shape[1]
        self._stride = max(1, width // _SAMPLE)
        at_once = min(len(rows), max(1, _SCORES_AT_ONCE // width))
        sheets = _KEPT.sheets(at_once, width)
        parts = [
            _read(given, cut, sheets, self._stride) for given in _in_parts(logits, rows, sheets)
        ]
        places = [part.places + n * at_once * width for n, part in enumerate(parts)]
        self._owner, self._ids = np.divmod(np.concatenate(places), width)
        self._head = np.concatenate([part.head for part in parts]).astype(np.float64)
        self._sample = np.concatenate([part.sample for part in parts])
        sums = np.concatenate([part.sums for part in parts]).astype(np.float64)
        self._tops, self._mass, self._moment = sums.T
        masses = np.exp(self._head)
        self._total = self._mass + np.bincount(self._owner, masses, len(rows))
        moment = self._moment + np.bincount(self._owner, masses * self._head, len(rows))
        self.mean = moment / self._total
        self.is_row = np.isfinite(self._tops)
        self.nats = np.log(self._total) - self.mean

    def points(self, chosen: Array) -> Points:
        """Return the heads and the nodes of the *chosen* rows, which are in order."""
        order = np.full(len(self._rows), -1)
        order[chosen] = np.arange(len(chosen))
        owner = order[self._owner]
        self._mine = np.flatnonzero(owner >= 0)
        owner = owner[self._mine]
        nodes = np.tile(_NODES - self._cut, len(chosen))
        return Points(
            np.concatenate([self._head[self._mine], nodes]),
            np.concatenate([owner, np.repeat(np.arange(len(chosen)), len(_NODES))]),
            np.searchsorted(owner, np.arange(len(chosen))),
            len(owner),
            self._n_like(chosen),
        )

    def _n_like(self, chosen: Array) -> Array:
        """Return how many tokens each node stands for, shape ``(rows, nodes)``."""
        mean, floor = self.mean[chosen, None], EPS * self._total[chosen, None]
        nodes = _NODES - self._cut
        weight = np.exp(nodes)
        s = floor / (weight * (mean - nodes) + floor)
        basis = np.stack([np.ones_like(s), np.broadcast_to(nodes, s.shape), s, s * nodes], axis=1)
        tail = np.stack([self._mass[chosen], self._moment[chosen], *self._held(chosen)], axis=1)
        return np.linalg.solve(basis, tail[:, :, None])[..., 0] / weight

    def _held(self, chosen: Array) -> tuple[Array, Array]:
        """Return the sums of e^z s and e^z s z over each tail, told from a sample of it.

        s is near 0 but for tokens whose gradient is near Adam's epsilon: both are at most some 5e-5
        of the row's mass, so that a sample's few hundredths of them are nothing.
        """
        z = self._sample[chosen]
        mean, floor = _column(self.mean[chosen]), _column(EPS * self._total[chosen])
        weight = np.where(z <= -self._cut, np.exp(z), np.float32(0))
        held = weight * floor / (weight * (mean - z) + floor)
        return held.sum(1) * self._stride, (held * z).sum(1) * self._stride

    def write(self, logits: Tensor, points: Points) -> None:
        """Write the heads of *points* into their rows."""
        owner, ids = self._owner[self._mine], self._ids[self._mine]
        moved = points.scores[: points.n_heads] + self._tops[owner]
        logits.numpy()[self._rows[owner], ids] = moved


class _Part(NamedTuple):
    """What has been read of the rows that were read together.

    Attributes:
        places: Where the heads lie, counted over all scores of these rows, shape ``(K,)``.
        head: They, relative to the best of their row.
        sample: Some scores of each row, likewise relative, shape ``(R, S)``.
        sums: The best score of each row; of its tail the sums of e^z and e^z z; shape ``(R, 3)``.
    """

    places: Array
    head: Array
    sample: Array
    sums: Array


def _in_parts(logits: Tensor, rows: Sequence[int], sheets: _Sheets) -> Iterator[Tensor]:
    """Yield *rows*, as many at once as *sheets* have; not to be kept, nor written to."""
    import torch

    at_once, first = len(sheets.tail), rows[0]
    if [*rows] == [*range(first, first + len(rows))]:
        yield from torch.split(logits[first : first + len(rows)], at_once)
        return
    for some in torch.split(torch.tensor(rows), at_once):
        yield torch.index_select(logits, 0, some, out=sheets.tail[: len(some)])


def _read(given: Tensor, cut: float, sheets: _Sheets, stride: int) -> _Part:
    """Read some rows, all of it while they lie in the processor's cache."""
    import torch

    if len(given) < len(sheets.tail):
        sheets = sheets.first(len(given))
    tail, masses, scores, weights, is_head = sheets
    tops = given.amax(-1, keepdim=True)
    torch.sub(given, tops, out=tail).clamp_(min=FLOOR)
    places = np.flatnonzero(np.greater(scores, -cut, out=is_head))
    head = scores.reshape(-1)[places]
    sample = scores[:, ::stride].copy()
    torch.exp(tail, out=masses)
    weights.reshape(-1)[places] = 0.0
    mass = masses.sum(-1, keepdim=True)
    moment = tail.mul_(masses).sum(-1, keepdim=True)
    return _Part(places, head, sample, torch.cat((tops, mass, moment), 1).numpy())


def _column(values: Array) -> Array:
    return values.astype(np.float32)[:, None]
