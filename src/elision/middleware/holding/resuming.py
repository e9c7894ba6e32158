"""Going back on an engine that only speaks text: what it wrote is cut, and it goes on otherwise.

The reply up to where the refused part began is handed back as the beginning to continue. What
stands there next is chosen here, among the likeliest tokens that the engine tells for that place;
so the same cannot be written again at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from secrets import randbits
from typing import TYPE_CHECKING, Final

from elision.contract import (
    Alternative,
    Capability,
    Engine,
    Plan,
    Request,
    TokenLogprob,
    collect,
    text_of,
)
from elision.errors import ElisionError, GuardError, UpstreamTimeoutError
from elision.middleware.carrying import acts
from elision.middleware.holding import picking

if TYPE_CHECKING:
    from elision.middleware.holding.chain import Place
    from elision.middleware.holding.layers import Layers

TRIES_PER_PLACE: Final = 8
TRIES_PER_REPLY: Final = 32
_N_ALTERNATIVES: Final = 20
_LONGER: Final = frozenset({"min_tokens", "best_of"})
"""Fields that have no meaning, or no place, in a request for one token."""
_SEED_STEP: Final = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class Onward:
    """How a reply goes on from a place.

    Attributes:
        plan: What the engine is asked next.
        entry: The token that stands there, with its alternatives; None leaves it to the engine.
    """

    plan: Plan
    entry: TokenLogprob | None = None


@dataclass(slots=True)
class Resuming:
    """Has one choice go on otherwise where it was refused. Lives for one choice.

    Args:
        engine: Who writes.
        plan: What was asked first, for this choice alone.
        layers: What guards the request.
        deadline: Of the whole request, on the monotonic clock in seconds; None: none.

    Attributes:
        n_rewinds: Times that it went back.
        n_calls: Requests for alternatives that the engine was sent.
    """

    engine: Engine
    plan: Plan
    layers: Layers
    deadline: float | None = None
    n_rewinds: int = 0
    n_calls: int = 0
    _tried: dict[str, list[str]] = field(default_factory=dict, repr=False)
    _seed: int | None = None

    @property
    def is_able(self) -> bool:
        """Whether the engine continues what it is given."""
        request = self.plan.request
        is_raw = request.kind == "text" and isinstance(request.prompt, str)
        return is_raw or Capability.CONTINUE in self.engine.capabilities

    async def onward(self, place: Place, *, n_kept: int) -> Onward | None:
        """Return how the choice goes on from *place*; None if it does not.

        Args:
            place: Where it was refused.
            n_kept: Tokens that stand before it.

        Raises:
            UpstreamTimeoutError: If the request's deadline has passed.
        """
        tried = self._tried.setdefault(place.written, [])
        is_spent = len(tried) >= TRIES_PER_PLACE or self.n_rewinds >= TRIES_PER_REPLY
        if is_spent or not self.is_able:
            return None
        base = continued(self.plan.request, place.written)
        if base is None or self._left(n_kept) == 0:
            return None
        self.n_rewinds += 1
        if (told := await self._told(base)) is None:
            return None
        chosen = self._chosen(told, place, frozenset(tried))
        if chosen is None and (told or self.plan.request.sampling.temperature == 0):
            return None
        text = "" if chosen is None else picking.text_of(chosen)
        tried.append(text)
        return Onward(
            plan=replace(self.plan, request=self._request(place.written + text, n_kept, chosen)),
            entry=None if chosen is None else self._entry(chosen, told),
        )

    def _chosen(
        self, told: Sequence[Alternative], place: Place, tried: frozenset[str]
    ) -> Alternative | None:
        found = picking.suitable(
            told, self.layers, before=place.before, refused=place.refused, tried=tried
        )
        sampling = self.plan.request.sampling
        return picking.pick(found, sampling, seed=self._key, attempt=self.n_rewinds)

    def _entry(self, chosen: Alternative, told: Sequence[Alternative]) -> TokenLogprob:
        top = tuple(told[: self.plan.request.logprobs or 0])
        return TokenLogprob(chosen.token, chosen.logprob, chosen.data, top)

    def _request(self, written: str, n_kept: int, chosen: Alternative | None) -> Request:
        base = continued(self.plan.request, written)
        assert base is not None
        sampling = base.sampling
        if sampling.seed is not None or chosen is None:
            seed = (self._key + _SEED_STEP * self.n_rewinds) % 2**31
            sampling = replace(sampling, seed=seed)
        left = self._left(n_kept + (chosen is not None))
        return replace(base, sampling=sampling, max_tokens=left, timeout_s=self._time_left())

    async def _told(self, base: Request) -> tuple[Alternative, ...] | None:
        """Return the likeliest tokens of the place behind *base*; none if the engine tells none.

        None if nothing acceptable is left at the place itself: then no draw finds anything there.
        """
        n_top = self._n_told(base)
        if not n_top:
            return ()
        extra = {key: value for key, value in base.extra.items() if key not in _LONGER}
        asked = replace(
            base, max_tokens=1, logprobs=n_top, stop=(), extra=extra, timeout_s=self._time_left()
        )
        self.n_calls += 1
        try:
            async with aclosing(self.engine.stream(replace(self.plan, request=asked))) as source:
                reply = await collect(source)
        except GuardError:
            raise
        except ElisionError:  # one who will not tell is one who does not
            return ()
        entries = reply.choices[0].logprobs if reply.choices else ()
        if not entries:
            is_dead = bool(reply.choices) and reply.choices[0].finish == "content_filter"
            return None if is_dead and acts(self.engine, self.plan) else ()
        own = Alternative(entries[0].token, entries[0].logprob, entries[0].data)
        found = {one.data: one for one in (own, *entries[0].top) if one.logprob == one.logprob}
        return tuple(sorted(found.values(), key=lambda one: -one.logprob))

    def _n_told(self, base: Request) -> int:
        if Capability.TOP_LOGPROBS not in self.engine.capabilities:
            return 0
        offers = getattr(self.engine, "offers", None)
        name = "n_logprobs" if base.kind == "chat" else "n_text_logprobs"
        return min(_N_ALTERNATIVES, int(getattr(offers, name, _N_ALTERNATIVES)))

    def _left(self, n_kept: int) -> int | None:
        limit = self.plan.request.max_tokens
        return None if limit is None else max(0, limit - n_kept)

    def _time_left(self) -> float | None:
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise UpstreamTimeoutError("the request's deadline passed while the reply went back")
        return left

    @property
    def _key(self) -> int:
        if self._seed is None:
            given = self.plan.request.sampling.seed
            self._seed = randbits(31) if given is None else given
        return self._seed


def continued(request: Request, written: str) -> Request | None:
    """Return *request* with the reply's beginning given; None if it cannot be.

    Args:
        request: As it was asked first. If it is to be echoed, the prompt must stand in *written*.
        written: What the client has seen, or will have.
    """
    if request.kind == "text":
        prompt = request.prompt
        if not isinstance(prompt, str) or (request.echo and not written.startswith(prompt)):
            return None
        return replace(request, prompt=written if request.echo else prompt + written, echo=False)
    if not written:
        return request
    messages = request.messages
    if request.continue_final and messages:
        last = {**messages[-1], "content": text_of(messages[-1]) + written}
        return replace(request, messages=(*messages[:-1], last))
    last = {"role": "assistant", "content": written}
    return replace(request, messages=(*messages, last), continue_final=True)
