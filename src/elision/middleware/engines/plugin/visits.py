"""Visits: what is done to the scores of requests that stand side by side in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Self

from elision.contract import BranchKey, Here, Session
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions.base import Chain, Contrasts
from elision.middleware.interventions.batching import Place, adjust_rows

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.plugin.worker import Worker


@dataclass(frozen=True, slots=True)
class Visit:
    """One row of scores, about to be adjusted.

    Attributes:
        index: The row.
        chain: What acts on it, in the state behind everything before that row.
        here_position: Tokens of the reply before it, drafted ones included.
        order: What its request asked for.
        is_dead: Whether nothing may come but the stop token.
        branch: Gives other scores for the position; None: there are none, and what reads some is
            left out.
        best_only: Whether nothing of the row counts but its best token; see `Place`.
        temperature: What the row is divided by, if nothing else is made of it; see `Place`.
        contrasts: Whether any session reads other scores.
        on_stop: Told when the stop token is forced here.
    """

    index: int
    chain: Chain = field(repr=False)
    here_position: int
    order: Order
    is_dead: bool = False
    branch: Callable[[BranchKey], Tensor] | None = None
    best_only: bool = False
    temperature: float | None = None
    contrasts: bool = True
    on_stop: Callable[[], None] | None = field(default=None, repr=False)

    @classmethod
    def void(cls, index: int, order: Order) -> Self:
        """Return the visit of a row from which nothing is drawn that counts."""
        return cls(index, Chain(), 0, order, is_dead=True)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """What acts, in order."""
        if self.branch is not None or not self.contrasts:
            return self.chain.sessions
        return tuple(s for s in self.chain.sessions if not isinstance(s, Contrasts))

    @property
    def banned(self) -> tuple[int, ...]:
        """What must not be chosen at this position, whatever the sessions say."""
        return self.order.bans.get(self.here_position, ())

    @property
    def acts(self) -> bool:
        """Whether anything can come of it."""
        return bool(self.chain.sessions or self.banned or self.order.stop is not None)


def adjust(logits: Tensor, visits: Sequence[Visit], worker: Worker) -> Tensor:
    """Carry out what the visits ask for, in place.

    A row whose sessions break, or leave nothing, or that holds no number, can only stop: every
    score is ``-inf`` but that of its order's stop token.

    Args:
        logits: Scores, float32, shape ``(R, V)``; overwritten. Rows that nobody visits stay.
        visits: At most one per row.
        worker: Whose rows these are.

    Returns:
        The same tensor.
    """
    live = [visit for visit in visits if not visit.is_dead and visit.acts]
    # First of all: a gateway may have biased it, so that a server without us stops at once.
    _forbid_(logits, [(v.index, token) for v in live for token in worker.reserved(v.order)])
    places = [_place(visit, logits) for visit in live]
    _forbid_(logits, [(v.index, token) for v in live for token in v.banned])
    empty = adjust_rows(logits, places)
    dead = [visit for visit in visits if visit.is_dead]
    stop_(logits, dead + [visit for visit in live if visit.index in empty], worker)
    return logits


def stop_(logits: Tensor, visits: Sequence[Visit], worker: Worker) -> None:
    """Let nothing be chosen in some rows but what ends them, and tell whose they are.

    Args:
        logits: Scores, shape ``(R, V)``; overwritten there.
        visits: At most one per row.
        worker: Whose rows these are.
    """
    if not visits:
        return
    rows = logits.new_tensor([visit.index for visit in visits]).long()
    logits.index_fill_(0, rows, -inf)
    ends = [(v.index, t) for v in visits for t in _ends(v.order, worker, logits.shape[-1])]
    _write_(logits, ends, 0.0)
    for visit in visits:
        if visit.on_stop is not None:
            visit.on_stop()


def _ends(order: Order, worker: Worker, width: int) -> tuple[int, ...]:
    found = tuple(token for token in worker.ends(order) if token < width)
    return found or tuple(token for token in worker.silent if token < width)


def _place(visit: Visit, logits: Tensor) -> Place:
    def make() -> Here:
        return Here(logits[visit.index].clone(), position=visit.here_position, branch=visit.branch)

    # What compares other scores to the model's own must see these as they were before a ban.
    here = make() if visit.branch is not None else make
    return Place(visit.index, visit.sessions, here, visit.best_only, visit.temperature)


def _forbid_(logits: Tensor, pairs: Sequence[tuple[int, int]]) -> None:
    _write_(logits, [pair for pair in pairs if pair[1] < logits.shape[-1]], -inf)


def _write_(logits: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> None:
    if not pairs:
        return
    rows, tokens = map(list, zip(*pairs, strict=True))
    if logits.device.type == "cpu":  # where a few tensors more cost what a row costs
        logits.numpy()[rows, tokens] = value
        return
    import torch

    lines, ids = torch.tensor([rows, tokens], device=logits.device)
    logits[lines, ids] = value
