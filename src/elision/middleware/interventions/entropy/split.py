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

_NODES: Final = np.array([-1.0, -5.0, -10.0, -13.0])
"""Where the nodes lie, in nats from the cut between head and tail; found by measuring."""


class _Kept(threading.local):
    """What one thread writes into, step after step: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self._block, self._flags = np.empty((3, 0, 0), np.float32), np.empty((0, 0), np.bool_)

    def matrices(self, n_rows: int, n_scores: int) -> tuple[Array, Array, Array, Array]:
        """Return three matrices and one of flags, their values undefined."""
        _, most, width = self._block.shape
        if width != n_scores or most < n_rows:
            self._block = np.empty((3, n_rows, n_scores), np.float32)
            self._flags = np.empty((n_rows, n_scores), np.bool_)
        first, second, third = self._block[:, :n_rows]
        return first, second, third, self._flags[:n_rows]


_KEPT: Final = _Kept()


class Points(NamedTuple):
    """Scores that descend together: the heads of some rows, then their nodes.

    Attributes:
        scores: Relative to the best of their row, float64, shape ``(K,)``; overwritten.
        owner: The row of each, counted among those rows.
        n_like: How many tokens each stands for; a node's is no whole number, and may be negative.
        n_rows: Rows.
        n_heads: Points that are tokens.
    """

    scores: Array
    owner: Array
    n_like: Array
    n_rows: int
    n_heads: int

    def sums(self, values: Array) -> Array:
        """Return the sum of *values* over each row."""
        return np.bincount(self.owner, values, self.n_rows)


class Split:
    """A few rows, each split into head and tail.

    Attributes:
        is_row: Whether a row has a distribution.
        nats: Its entropy.
        mean: Its mean score, relative to the best.
    """

    def __init__(self, logits: Tensor, rows: Sequence[int], cut: float) -> None:
        import torch

        self._rows, self._cut = np.array(rows), cut
        scores, weights, spare, flags = _KEPT.matrices(len(rows), logits.shape[1])
        self._tail, self._weights = torch.from_numpy(scores), torch.from_numpy(weights)
        self._spare = torch.from_numpy(spare)
        self._tops = _move_to_zero(logits, rows, self._tail)
        where = np.flatnonzero(np.greater(scores, -cut, out=flags))
        self._owner, self._ids = np.divmod(where, logits.shape[1])
        flat = scores.reshape(-1)
        self._head = flat[where].astype(np.float64)
        flat[where] = FLOOR
        self._tail.clamp_(min=FLOOR)
        np.exp(scores, out=weights)
        mass = self._weights.sum(-1).double().numpy()
        moment = torch.mul(self._tail, self._weights, out=self._spare).sum(-1).double().numpy()
        heads = np.exp(self._head)
        self.is_row = np.isfinite(self._tops)
        self._mass, self._moment = mass, moment
        self._total = mass + np.bincount(self._owner, heads, len(rows))
        self.mean = (moment + np.bincount(self._owner, heads * self._head, len(rows))) / self._total
        self.nats = np.log(self._total) - self.mean

    def points(self, chosen: Array) -> Points:
        """Return the heads and the nodes of the *chosen* rows."""
        order = np.full(len(self._rows), -1)
        order[chosen] = np.arange(len(chosen))
        self._mine = np.flatnonzero(order[self._owner] >= 0)
        nodes = np.broadcast_to(_NODES - self._cut, (len(chosen), len(_NODES))).reshape(-1)
        owners = np.repeat(np.arange(len(chosen)), len(_NODES))
        n_like = np.concatenate([np.ones(len(self._mine)), self._n_like(chosen).reshape(-1)])
        return Points(
            np.concatenate([self._head[self._mine], nodes]),
            np.concatenate([order[self._owner[self._mine]], owners]),
            n_like,
            len(chosen),
            len(self._mine),
        )

    def _n_like(self, chosen: Array) -> Array:
        """Return how many tokens each node stands for, shape ``(rows, nodes)``."""
        mean, floor = self.mean[chosen, None], EPS * self._total[chosen, None]
        still, lean = self._still(chosen, mean, floor)
        nodes = _NODES - self._cut
        weight = np.exp(nodes)
        s = floor / (weight * (mean - nodes) + floor)
        basis = np.stack([np.ones_like(s), np.broadcast_to(nodes, s.shape), s, s * nodes], axis=1)
        moments = np.stack([self._mass[chosen], self._moment[chosen], still, lean], axis=1)
        return np.linalg.solve(basis, moments[..., None])[..., 0] / weight

    def _still(self, chosen: Array, mean: Array, floor: Array) -> tuple[Array, Array]:
        """Return the tail's sums of e^z s and e^z s z, with s as in `minimise_entropies_`."""
        still, lean = np.empty(len(chosen)), np.empty(len(chosen))
        for part, rows in _runs(chosen):
            here = floor[part]
            sums = self._sums(rows, mean[part].astype(np.float32), here.astype(np.float32))
            still[part], lean[part] = sums * here.T
        return still, lean

    def _sums(self, rows: slice, mean: Array, floor: Array) -> Array:
        import torch

        tail, weights, spare = self._tail[rows], self._weights[rows], self._spare[rows]
        # The product of tail and weights still stands in the spare matrix: the gradient is near.
        spare.addcmul_(weights, torch.from_numpy(mean), value=-1)
        torch.sub(torch.from_numpy(floor), spare, out=spare)
        torch.div(weights, spare, out=spare)
        still = spare.sum(-1).double().numpy()
        return np.stack([still, spare.mul_(tail).sum(-1).double().numpy()])

    def write(self, logits: Tensor, points: Points) -> None:
        """Write the heads of *points* into their rows."""
        owner, ids = self._owner[self._mine], self._ids[self._mine]
        moved = points.scores[: points.n_heads] + self._tops[owner]
        logits.numpy()[self._rows[owner], ids] = moved


def _runs(rows: Array) -> Iterator[tuple[slice, slice]]:
    """Yield ascending *rows* as runs of neighbours: where a run stands among them, and its rows."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            yield slice(start, end), slice(int(rows[start]), int(rows[end - 1]) + 1)
            start = end


def _move_to_zero(logits: Tensor, rows: Sequence[int], scores: Tensor) -> Array:
    """Write *rows* into *scores*, the best of each at 0; return what it was."""
    import torch

    if [*rows] == [*range(rows[0], rows[0] + len(rows))]:
        given = logits[rows[0] : rows[0] + len(rows)]
    else:
        given = torch.index_select(logits, 0, torch.tensor(rows), out=scores)
    tops = given.amax(-1, keepdim=True)
    torch.sub(given, tops, out=scores)
    return tops[:, 0].double().numpy()
