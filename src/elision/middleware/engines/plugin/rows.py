"""Rows: requests in a batch, each with its order and what acts on it so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from elision.contract import BranchKey, Capability, Context
from elision.errors import GuardError
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.plugin.visits import Visit
from elision.middleware.interventions.base import Chain, Contrasts

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.plugin.worker import Worker

_log = logging.getLogger(__name__)
_TAIL: Final = 32
"""Tokens by which a list is known again: vLLM appends to it, or cuts its end off."""


class Row:
    """One request in the batch: its order, and the chain as far as its tokens are committed.

    Mutable; lives as long as the request stands in the batch. Made by `open`.

    Attributes:
        order: What the request asked for.
        is_dead: Whether no more may come of it. A row that is dead stays so, as it does where the
            stop token was forced and vLLM goes on all the same.
    """

    def __init__(
        self,
        order: Order,
        worker: Worker,
        first: Chain | None,
        *,
        best_only: bool = False,
        temperature: float | None = None,
    ) -> None:
        self.order = order
        self.is_dead = first is None
        self._worker = worker
        self._taking = best_only, temperature
        self._first = self._chain = first or Chain()
        self._contrasts = any(isinstance(s, Contrasts) for s in self._first.sessions)
        self._stops: set[tuple[int, tuple[int, ...]]] = set()
        self._seen: list[int] = []
        self._source: Sequence[int] | None = None

    def __repr__(self) -> str:
        return f"Row({len(self._seen)} tokens{', dead' if self.is_dead else ''})"

    @classmethod
    def open(
        cls,
        order: Order,
        prompt_ids: Sequence[int] | None,
        worker: Worker,
        *,
        capabilities: Capability = Capability.LOGITS,
        best_only: bool = False,
        temperature: float | None = None,
    ) -> Self:
        """Open the sessions that *order* asks for. Never raises: what fails makes the row dead.

        Args:
            order: What the request asks for.
            prompt_ids: Its prompt; None where vLLM was given embeddings, which nobody can read.
            worker: Where this is.
            capabilities: What recipes may ask for.
            best_only: Whether the best token is picked, and no other's probability is told.
            temperature: What the scores are divided by, if that is all that is done with them.
        """
        try:
            if worker.unfit or prompt_ids is None:
                raise GuardError(worker.unfit or "a prompt of embeddings has no tokens to read")
            if order.stop in worker.eos:
                raise GuardError("a reply that was stopped could not be told from one that ended")
            context = _context(order, prompt_ids, worker, capabilities)
            first = Chain.begin((*order.recipes, *worker.masks(order)), context)
        except Exception as exc:
            _tell("opened", exc)
            first = None
        return cls(order, worker, first, best_only=best_only, temperature=temperature)

    @classmethod
    def dead(cls, worker: Worker, order: Order | None = None) -> Self:
        """Return a row of which nothing may come."""
        return cls(order or Order(), worker, None)

    def visit(
        self,
        index: int,
        output: Sequence[int],
        drafts: Sequence[int] = (),
        branch: Callable[[BranchKey], Tensor] | None = None,
    ) -> Visit:
        """Return what is to be done to row *index*, which stands behind *output* and *drafts*.

        Args:
            index: The row of the scores.
            output: The tokens of the reply that are committed, all of them. Where they are not
                those of the visit before with more behind them, the chain begins anew.
            drafts: Tokens behind them that may not stay; nothing of them is kept.
            branch: See `Visit.branch`.
        """
        chain, is_dead = self._chain, True
        if not self.is_dead:
            try:
                self._catch_up(output)
                chain = self._after(self._chain, drafts)
                is_dead = self.is_dead or bool(chain.verdicts) or self.order.stop in drafts
            except Exception as exc:
                _tell("followed", exc)
        position = len(output) + len(drafts)
        on_stop = partial(self._stops.add, (len(output), tuple(drafts)))
        more = *self._taking, self._contrasts, on_stop
        return Visit(index, chain, position, self.order, is_dead, branch, *more)

    def _catch_up(self, output: Sequence[int]) -> None:
        n_seen = len(self._seen)
        if not self._goes_on(output):
            self._chain, self._seen, n_seen = self._first, [], 0
            self._stops.clear()
        elif self._stops:
            self._check_stops(output)
        self._source = output
        for token in islice(output, n_seen, None) if n_seen < len(output) else ():
            self._chain = self._after(self._chain, (token,))
            self._seen.append(token)
            self.is_dead |= token == self.order.stop

    def _check_stops(self, output: Sequence[int]) -> None:
        """Die if *output* goes on behind a stop that was forced; forget those it has passed by.

        A row may be scored twice, as while a prompt is read in parts: that is no going on.
        """
        for n, drafts in [*self._stops]:
            end = n + len(drafts)
            self.is_dead |= len(output) > end and tuple(output[n:end]) == drafts
            if n < len(output):
                self._stops.discard((n, drafts))

    def _goes_on(self, output: Sequence[int]) -> bool:
        """Return whether *output* is what was seen, with or without more behind it."""
        n = len(self._seen)
        start = max(0, n - _TAIL) if output is self._source else 0
        return n <= len(output) and list(output[start:n]) == self._seen[start:]

    def _after(self, chain: Chain, tokens: Sequence[int]) -> Chain:
        for token in tokens:
            if not 0 <= token < self._worker.vocab_size:
                raise GuardError("a token of the reply is not known yet, or is none of the model's")
            chain = chain.advance(int(token))
        return chain


def _context(
    order: Order, prompt_ids: Sequence[int], worker: Worker, capabilities: Capability
) -> Context:
    lexicon = worker.lexicon
    return Context(
        lexicon=worker.read_lexicon,
        vocab_size=worker.vocab_size,
        prompt_ids=tuple(prompt_ids),
        before=lexicon.text(prompt_ids) if order.before is None else order.before,
        user_text=order.user_text,
        eos=worker.eos,
        choice=order.choice,
        seed=order.seed,
        capabilities=capabilities,
        reader=worker,
    )


def _tell(what: str, exc: Exception) -> None:
    """Say that a row is dead; of the reason, its kind alone: a message may quote a text."""
    _log.warning("a guarded row could not be %s and was stopped: %s", what, type(exc).__name__)
