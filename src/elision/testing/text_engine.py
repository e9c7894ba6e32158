"""An engine that only speaks text: the pieces it is given, as it is given them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from elision.contract import (
    Alternative,
    Capability,
    Delta,
    Finish,
    Lexicon,
    Plan,
    Request,
    TokenLogprob,
    Usage,
    text_of,
)
from elision.errors import CapabilityError, EngineError

Words: TypeAlias = "str | Sequence[str | Delta]"
"""A text, or its pieces; a piece that is a delta may say more than text."""


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
        continues: What it writes behind a beginning that it is given; None: it begins anew.
        likely: What could stand behind a beginning, likeliest first; None: it tells no
            log-probabilities. A piece that is written is told besides, unless it brings its own.

    Attributes:
        requests: Every request that was begun, in order.
        n_open: Streams that are being read.
    """

    lexicon: Lexicon | None = None

    def __init__(
        self,
        reply: Words | Callable[[Request], Words],
        *,
        every: int = 1,
        breaks_after: int | None = None,
        error: Exception | None = None,
        name: str = "text",
        continues: Callable[[str], Words] | None = None,
        likely: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self.name = name
        self.capabilities = Capability.NONE
        if continues is not None:
            self.capabilities |= Capability.CONTINUE
        if likely is not None:
            self.capabilities |= Capability.TOP_LOGPROBS
        self.requests: list[Request] = []
        self.n_open = 0
        self._reply = reply
        self._every = every
        self._breaks_after = breaks_after
        self._error = error or EngineError("the text engine broke, as it was told to")
        self._continues = continues
        self._likely = likely

    async def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        """See `Engine.stream`."""
        if plan.recipes:
            raise CapabilityError("recipes", engine=self.name, missing="LOGITS")
        self.requests.append(plan.request)
        pieces, finish = _cut(self._pieces(plan.request), plan.request)
        pieces = [*self._told(pieces, plan.request)]
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

    def _pieces(self, request: Request) -> list[Delta]:
        reply = self._words(request)
        if not isinstance(reply, str):
            return [Delta(text=one) if isinstance(one, str) else one for one in reply]
        step = self._every or max(1, len(reply))
        return [Delta(text=reply[at : at + step]) for at in range(0, len(reply), step)]

    def _words(self, request: Request) -> Words:
        if request.continue_final and self._continues is not None:
            return self._continues(_beginning(request))
        return self._reply(request) if callable(self._reply) else self._reply

    def _told(self, pieces: list[Delta], request: Request) -> Iterator[Delta]:
        """Yield *pieces* with the log-probabilities that *request* asks for."""
        text = _beginning(request)
        for piece in pieces:
            if request.logprobs is None or self._likely is None or not piece.text or piece.logprobs:
                yield piece
            else:
                likely = self._likely(text)[: request.logprobs]
                yield replace(piece, logprobs=(_entry(piece.text, likely),))
            text += piece.text

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


def _beginning(request: Request) -> str:
    """Return what of the reply is there already."""
    if request.kind == "text":
        return request.prompt if isinstance(request.prompt, str) else ""
    return text_of(request.messages[-1]) if request.continue_final else ""


def _entry(text: str, likely: Sequence[str]) -> TokenLogprob:
    """Return a token's entry: each place of the ranking is half as likely as the one before."""
    top = tuple(Alternative(o, -0.7 * (n + 1), o.encode()) for n, o in enumerate(likely))
    return TokenLogprob(text, -0.5, text.encode(), top)


def _cut(pieces: list[Delta], request: Request) -> tuple[list[Delta], Finish]:
    """Return the pieces that a request's limits leave, and what ended them."""
    finish: Finish = "stop"
    if request.max_tokens is not None and len(pieces) > request.max_tokens:
        pieces, finish = pieces[: request.max_tokens], "length"
    text = "".join(piece.text for piece in pieces)
    found = [at for at in map(text.find, request.stop) if at >= 0]
    if not found:
        return pieces, finish
    return _first(pieces, min(found)), "stop"


def _first(pieces: list[Delta], n_characters: int) -> list[Delta]:
    kept = []
    for piece in pieces:
        if n_characters <= 0:
            break
        kept.append(replace(piece, text=piece.text[:n_characters]))
        n_characters -= len(piece.text)
    return kept


def _spoken(pieces: list[Delta], finish: Finish, *, n: int, until: int | None) -> list[Delta]:
    """Return the deltas of *n* interleaved choices; their ends only if nothing breaks before."""
    said = [replace(piece, choice=c) for piece in pieces[:until] for c in range(n)]
    if until is not None:
        return said
    return [*said, *(Delta(choice=c, finish=finish) for c in range(n))]
