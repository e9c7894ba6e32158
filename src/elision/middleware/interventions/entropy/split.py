"""Rows split into a head, which is moved, and a tail, which a few made-up tokens stand for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from elision.middleware.interventions.entropy.minimisation import EPS
from elision.middleware.interventions.entropy.row import FLOOR

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_NODES: Final = np.array([-1.0, -5.0, -10.0, -13.0])
"""Where the nodes lie, in nats from the cut between head and tail; found by measuring."""
_SCORES_AT_ONCE: Final = 1 << 17
"""Scores that are read together: what is made of them stays in a processor's second cache."""


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
        self._rows, self._cut = np.array(rows), cut
        at_once = max(1, _SCORES_AT_ONCE // logits.shape[1])
        parts = [_read(logits, rows[n : n + at_once], cut) for n in range(0, len(rows), at_once)]
        self._owner = np.concatenate([p.owner + n * at_once for n, p in enumerate(parts)])
        self._ids = np.concatenate([part.ids for part in parts])
        self._head = np.concatenate([part.head for part in parts])
        sums = np.concatenate([part.sums for part in parts], axis=1)
        self._tops, self._total, self.mean, *tail = sums
        self._tail = np.stack(tail, axis=1)
        self.is_row = np.isfinite(self._tops)
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
        nodes = _NODES - self._cut
        weight = np.exp(nodes)
        s = floor / (weight * (mean - nodes) + floor)
        basis = np.stack([np.ones_like(s), np.broadcast_to(nodes, s.shape), s, s * nodes], axis=1)
        return np.linalg.solve(basis, self._tail[chosen, :, None])[..., 0] / weight

    def write(self, logits: Tensor, points: Points) -> None:
        """Write the heads of *points* into their rows."""
        owner, ids = self._owner[self._mine], self._ids[self._mine]
        moved = points.scores[: points.n_heads] + self._tops[owner]
        logits.numpy()[self._rows[owner], ids] = moved


class _Part(NamedTuple):
    """What has been read of the rows that were read together.

    Attributes:
        owner: The row of each score of a head, counted among these rows, shape ``(K,)``.
        ids: Its token.
        head: It, relative to the best of its row, float64.
        sums: Of each row: its best score, its total mass e^z, its mean score; of its tail the sums
            of e^z, e^z z, e^z s and e^z s z, with s as in `minimise_entropies_`; shape ``(7, R)``.
    """

    owner: Array
    ids: Array
    head: Array
    sums: Array


def _read(logits: Tensor, rows: Sequence[int], cut: float) -> _Part:
    """Read *rows*, all of it while they lie in the processor's cache."""
    import torch

    scores, weights, spare, flags = _KEPT.matrices(len(rows), logits.shape[1])
    tail, masses, product = map(torch.from_numpy, (scores, weights, spare))
    tops = _move_to_zero(logits, rows, tail)
    where = np.flatnonzero(np.greater(scores, -cut, out=flags))
    owner, ids = np.divmod(where, logits.shape[1])
    head = scores.reshape(-1)[where].astype(np.float64)
    torch.exp(tail, out=masses)
    weights.reshape(-1)[where] = 0.0
    moment = torch.mul(tail, masses, out=product).sum(-1)
    if not moment.isfinite().all():  # something is forbidden: its mass of 0 times -inf is none
        tail.clamp_(min=FLOOR)
        moment = torch.mul(tail, masses, out=product).sum(-1)
    mass, heads = masses.sum(-1).double().numpy(), np.exp(head)
    total = mass + np.bincount(owner, heads, len(rows))
    mean = (moment.numpy() + np.bincount(owner, heads * head, len(rows))) / total
    floor = EPS * total
    product.addcmul_(masses, _column(mean), value=-1)
    torch.sub(_column(floor), product, out=product)
    torch.div(masses, product, out=product)
    still = product.sum(-1).numpy() * floor
    lean = product.mul_(tail).sum(-1).numpy() * floor
    sums = np.stack([tops, total, mean, mass, moment.numpy(), still, lean])
    return _Part(owner, ids, head, sums)


def _column(values: Array) -> Tensor:
    import torch

    return torch.from_numpy(values.astype(np.float32)[:, None])


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
