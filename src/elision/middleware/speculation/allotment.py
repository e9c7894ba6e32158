"""Which drafted nodes of several sequences to score in one forward, and who pays for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from elision.middleware.speculation.base import Draft, Mode

START_STEPS: Final = 2.0
"""A new ledger holds the time of so many plain steps; spec 4.5, C0."""


@dataclass(slots=True, eq=False)
class Ledger:
    """The time that drafting has saved and spent, of one tenant and profile on one engine.

    Lives as long as the matrix of that tenant and profile; touched by the engine's thread only.

    Attributes:
        credit: Seconds that may be lost to drafts that are not accepted.
        opened: Seconds it was opened with; zero before its first round.
        spent: Seconds its rounds took: its share of those that drafted for it, and what plain
            decoding costs of the others.
        plain: Seconds plain decoding would have taken for the same tokens.
    """

    credit: float = 0.0
    opened: float = 0.0
    spent: float = 0.0
    plain: float = 0.0

    def open(self, step_s: float) -> None:
        """Give a new ledger its start, *step_s* being the seconds of a plain step. Idempotent."""
        if not self.opened:
            self.opened = START_STEPS * step_s
            self.credit += self.opened


@dataclass(frozen=True, slots=True)
class Ask:
    """One sequence of a round.

    Attributes:
        draft: What may be scored for it, the most probable nodes first.
        ledger: Whose time it is; sequences of one tenant and profile share one.
        mode: *auto* drafts where it pays and can be paid for, *force* scores at least one node
            whenever there is one, at nobody's expense, *off* scores none.
        n_context: Tokens in its cache.
        width: Rows that its root and each of its nodes takes: more than one where other contexts
            are scored along.
    """

    draft: Draft
    ledger: Ledger
    mode: Mode
    n_context: int
    width: int = 1

    @property
    def drafts(self) -> bool:
        """Whether any of its nodes may be scored."""
        return self.mode != "off" and len(self.draft) > 0


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of B sequences costs without drafts and with 1, 2, ... nodes.

    Attributes:
        n_sequences: B.
        plain: Seconds of the forward over the roots alone.
        seconds: With m + 1 nodes, drafting included.
        extra: Seconds that m + 1 nodes add to *plain*, at the 90th percentile.
        token_s: Seconds of choosing one token.
    """

    n_sequences: int
    plain: float
    seconds: NDArray[np.float64]
    extra: NDArray[np.float64]
    token_s: float

    def speed(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return tokens per second with m + 1 nodes of these *weights*, most probable first."""
        tokens = self.n_sequences + weights.cumsum()
        return tokens / (self.seconds[: len(tokens)] + self.token_s * tokens)

    @property
    def plain_speed(self) -> float:
        """Tokens per second without drafts."""
        return self.n_sequences / (self.plain + self.token_s * self.n_sequences)


def allot(asks: Sequence[Ask], pool: Sequence[int], costs: Round) -> tuple[list[int], float]:
    """Return the best sizes that the ledgers of *pool* can pay, and their tokens per second.

    Where a ledger stands in the way of the best size, the size that it can pay is compared
    with the best one without its nodes.
    """
    best, best_speed = [0] * len(asks), 0.0
    while pool:
        owners, weights = _ranked(asks, pool)
        speed = costs.speed(weights)
        speed[: max(0, sum(asks[i].mode == "force" for i in pool) - 1)] = 0.0
        top, payable, barred = int(speed.argmax()), speed.copy(), set[int]()
        for ledger, is_short in _shortages(asks, pool, owners, costs.extra):
            payable[is_short] = 0.0
            if is_short[top]:
                barred.add(ledger)
        m = int(payable.argmax())
        if payable[m] > best_speed:
            best = np.bincount(owners[: m + 1], minlength=len(asks)).tolist()
            best_speed = float(payable[m])
        if not barred:
            break
        pool = [i for i in pool if asks[i].mode == "force" or id(asks[i].ledger) not in barred]
    return best, best_speed


def _ranked(
    asks: Sequence[Ask], pool: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return owner and weight of every node of *pool*, the most probable first.

    The first node of a forced sequence comes before all others: it is scored in any case.
    """
    sizes = [len(asks[i].draft) for i in pool]
    weights = np.array([w for i in pool for w in asks[i].draft.weights], dtype=np.float64)
    rank = weights.copy()
    first = 0
    for i, size in zip(pool, sizes, strict=True):
        if asks[i].mode == "force":
            rank[first] = math.inf
        first += size
    order = (-rank).argsort(kind="stable")
    return np.repeat(pool, sizes)[order], weights[order]


def _shortages(
    asks: Sequence[Ask],
    pool: Sequence[int],
    owners: NDArray[np.intp],
    extra: NDArray[np.float64],
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield every ledger of *pool* by its id, and at which sizes its share is more than it has."""
    extra = extra[: len(owners)]
    for ledger in {
        id(asks[i].ledger): asks[i].ledger for i in pool if asks[i].mode == "auto"
    }.values():
        is_its = np.array([ask.mode == "auto" and ask.ledger is ledger for ask in asks])
        n_its = is_its[owners].cumsum()
        share = extra * n_its / np.arange(1, len(owners) + 1)
        yield id(ledger), (n_its > 0) & (share > ledger.credit)
