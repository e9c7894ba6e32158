"""An engine that only speaks text: the pieces it is given, as it is given them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

from elision.contract import Capability, Delta, Finish, Lexicon, Plan, Request, Usage
from elision.errors import CapabilityError, EngineError

Words: TypeAlias = "str | Sequence[str]"


class TextEngine:
    """Streams given text in given pieces, as a remote server would: no logits, no tokens.

    Every choice says the same; with several, their pieces interleave. A piece counts as a token.
    ``max_tokens`` and ``stop`` are honoured, recipes are refused.

    Args:
        reply: The text, or its pieces, or a function of the request that returns either.
        every: Characters per piece of a reply that is one string; 0 sends it at once.
        breaks_after: Pieces after which *error* is raised; None never breaks.
        error: What is raised then.
        name: See `Engine`.

    Attributes:
        requests: Every request that was begun, in order.
        n_open: Streams that are being read.
    """

    capabilities: Capability = Capability.NONE
    lexicon: Lexicon | None = None

    def __init__(
        self,
        reply: Words | Callable[[Request], Words],
        *,
        every: int = 1,
        breaks_after: int | None = None,
        error: Exception | None = None,
        name: str = "text",
    ) -> None:
        self.name = name
        self.requests: list[Request] = []
        self.n_open = 0
        self._reply = reply
        self._every = every
        self._breaks_after = breaks_after
        self._error = error or EngineError("the text engine broke, as it was told to")

    async def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        """See `Engine.stream`."""
        if plan.recipes:
            raise CapabilityError("recipes", engine=self.name, missing="LOGITS")
        self.requests.append(plan.request)
        pieces, finish = _cut(self._pieces(plan.request), plan.request)
        self.n_open += 1
        try:
            for delta in _spoken(pieces, finish, n=plan.request.n, until=self._breaks_after):
                await asyncio.sleep(0)
                yield delta
            if self._breaks_after is not None:
                raise self._error
            n_tokens = plan.request.n * len(pieces)
            yield Delta(usage=Usage(completion_tokens=n_tokens), report={"engine": self.name})
        finally:
            self.n_open -= 1

    def _pieces(self, request: Request) -> list[str]:
        reply = self._reply(request) if callable(self._reply) else self._reply
        if not isinstance(reply, str):
            return list(reply)
        step = self._every or max(1, len(reply))
        return [reply[at : at + step] for at in range(0, len(reply), step)]

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


def _cut(pieces: list[str], request: Request) -> tuple[list[str], Finish]:
    """Return the pieces that a request's limits leave, and what ended them."""
    finish: Finish = "stop"
    if request.max_tokens is not None and len(pieces) > request.max_tokens:
        pieces, finish = pieces[: request.max_tokens], "length"
    text = "".join(pieces)
    found = [at for at in map(text.find, request.stop) if at >= 0]
    if not found:
        return pieces, finish
    return _first(pieces, min(found)), "stop"


def _first(pieces: list[str], n_characters: int) -> list[str]:
    kept = []
    for piece in pieces:
        if n_characters <= 0:
            break
        kept.append(piece[:n_characters])
        n_characters -= len(piece)
    return kept


def _spoken(pieces: list[str], finish: Finish, *, n: int, until: int | None) -> list[Delta]:
    """Return the deltas of *n* interleaved choices; their ends only if nothing breaks before."""
    said = [Delta(choice=c, text=piece) for piece in pieces[:until] for c in range(n)]
    return (
        said if until is not None else [*said, *(Delta(choice=c, finish=finish) for c in range(n))]
    )
