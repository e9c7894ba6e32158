"""The chain where drafts are scored: around the model's own computation of scores.

vLLM's V1 runner drops every logits processor where tokens are drafted, so everything that an order
asks for, masks included, is done here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from elision.errors import EngineError
from elision.middleware.engines.plugin.layout import (
    Purpose,
    Runner,
    Slot,
    ask_to_the_end,
    purpose_of,
    slots_of,
)
from elision.middleware.engines.plugin.recycling import Scored, allowed, best_of
from elision.middleware.engines.plugin.seats import Seat, Seats
from elision.middleware.engines.plugin.visits import adjust

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.plugin.worker import Worker

_log = logging.getLogger(__name__)
_OUT = float("-inf")


class Hook:
    """Computes scores as the model does, and has them adjusted where tokens are chosen from them.

    Never raises for what an order asks. Where it cannot be told whose the rows are, and some
    request has an order, every row ends its reply.

    Args:
        compute: The model's own.
        runner: Who calls it.
        seats: Requests that have an order.
        worker: Where this is.
        n_drafts: Most tokens drafted for a request.

    Attributes:
        scored: Of the last step: the rows of requests that recycle, by name.
    """

    def __init__(
        self,
        compute: Callable[..., Tensor | None],
        runner: Runner,
        seats: Seats,
        worker: Worker,
        *,
        n_drafts: int,
    ) -> None:
        self.scored: dict[str, Scored] = {}
        self._compute = compute
        self._runner = runner
        self._seats = seats
        self._worker = worker
        self._n_drafts = n_drafts
        self._ends = worker.silent

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """Return the scores, shape ``(R, V)``; None on ranks that have none."""
        logits = self._compute(*args, **kwargs)
        purpose = purpose_of(sys._getframe(1))
        if logits is None or purpose == "other":
            return logits
        self.scored = {}
        ask_to_the_end(self._runner, self._n_drafts)
        try:
            return self._adjusted(logits, purpose)
        except Exception as exc:  # the engine goes on, and nothing gets past a guard
            # Of the reason its kind alone: a message may quote a text.
            _log.warning("a step was not adjusted and its replies end: %s", type(exc).__name__)
            return ended(logits, self._stopped(logits.shape[-1]))

    def _adjusted(self, logits: Tensor, purpose: Purpose) -> Tensor:
        seats = self._seats.of(self._runner)
        if not seats:
            return logits
        if purpose != "sampling":
            raise EngineError("vLLM computes scores at a place that is not known")
        slots = slots_of(self._runner.input_batch, int(logits.shape[0]))
        held = [(slot, seats[slot.request]) for slot in slots if slot.request in seats]
        return self._made(logits.float(), held)

    def _stopped(self, width: int) -> Collection[int]:
        """Let nothing more come of any request that has an order; return what ends them."""
        return {token for token in self._seats.give_up() if token < width} or self._ends

    def _made(self, scores: Tensor, held: Sequence[tuple[Slot, Seat]]) -> Tensor:
        """Adjust *scores* in place; keep what rows that are recycled show."""
        recycled = [(slot, seat) for slot, seat in held if seat.recycles]
        raw = best_of(scores) if recycled else None
        visits = [one for slot, seat in held for one in seat.visits(slot, scores)]
        scores = adjust(scores, visits, self._worker)
        if raw is not None:
            raw, made = allowed(raw, scores), best_of(scores)
            for slot, seat in recycled:
                rows = slice(slot.first, slot.end - slot.n_padding)
                shown = Scored(seat.pool, seat.tokens(slot), raw[rows], made[rows])
                self.scored[slot.request] = shown
        return scores


def ended(logits: Tensor, ends: Collection[int]) -> Tensor:
    """Return as many rows that let nothing through but a token that writes no text."""
    scores = logits.new_full(logits.shape, _OUT)
    scores[:, sorted(ends)] = 0.0
    return scores
