"""One choice from beginning to end: asked, guarded, taken back, asked again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from elision.contract import Delta, Engine, Plan, Request, Usage, text_of
from elision.middleware.carrying import acts
from elision.middleware.engines.release import Release
from elision.middleware.holding.chain import Place
from elision.middleware.holding.layers import Layers
from elision.middleware.holding.resuming import Onward, Resuming
from elision.middleware.holding.voice import Voice

_T = TypeVar("_T")
_SHOWN = ("tools", "response_format")
"""What the model is shown beside the messages."""
_CHARS_PER_TOKEN = 4  # of English text, as OpenAI's help pages have it


class Speaking:
    """One choice of a reply. Lives until it has ended.

    Args:
        engine: Who writes.
        plan: What is asked, for this choice alone.
        layers: What guards the request.
        choice: Its index in the reply.
        deadline: See `Resuming`.

    Attributes:
        was_refused: Whether it ended as a refusal.
        n_calls: Requests that the engine was sent.
        n_dead_ends: Times that the engine had nothing acceptable left to write.
        n_rewound: Tokens that were written and taken back.
        extra: What the upstream tells beside the reply.
        report: What the engine told of it first.
    """

    def __init__(
        self, engine: Engine, plan: Plan, layers: Layers, *, choice: int, deadline: float | None
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._layers = layers
        self._choice = choice
        self._resuming = Resuming(engine, plan, layers, deadline)
        self._stops: Release | None = None
        self._usage: Usage | None = None
        self._n_before = 0  # tokens of the reply that earlier calls wrote
        self._voice: Voice | None = None
        self._n_streams = 0
        self.was_refused = False
        self.n_rewound = self.n_dead_ends = 0
        self.extra: dict[str, Any] = {}
        self.report: dict[str, Any] = {}

    @property
    def n_calls(self) -> int:
        """Requests that the engine was sent."""
        return self._n_streams + self._resuming.n_calls

    @property
    def n_rewinds(self) -> int:
        """Times that it went back."""
        return self._resuming.n_rewinds

    @property
    def n_dropped(self) -> int:
        """See `Voice`."""
        return 0 if self._voice is None else self._voice.n_dropped

    @property
    def n_redacted(self) -> int:
        """See `Voice`."""
        return 0 if self._voice is None else self._voice.n_redacted

    @property
    def is_estimated(self) -> bool:
        """Whether the upstream was cut off before it told what it had read."""
        return self._usage is None and self.n_calls > 0

    @property
    def usage(self) -> Usage:
        """What the reply came to; what was taken back is left out of it."""
        if self._usage is None:
            n_tokens = 0 if self._voice is None else self._voice.n_tokens
            n_read = _about(self._plan.request) if self.is_estimated else 0
            return Usage(prompt_tokens=n_read, completion_tokens=n_tokens)
        if not self.n_rewinds:
            return self._usage
        prompt = max(0, self._usage.prompt_tokens - self._n_before)
        total = self._n_before + self._usage.completion_tokens
        return replace(self._usage, prompt_tokens=prompt, completion_tokens=total)

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Yield what may leave; the last delta ends the choice.

        Raises:
            GuardError: If a guard breaks.
        """
        voice = self._voice = await self._run(self._begin)
        onward = None if self._layers.is_shut else Onward(plan=self._plan)
        while onward is not None:
            async with aclosing(self._said(onward)) as source:
                async for delta in source:
                    is_dead = self._is_dead_end(delta)
                    take = voice.stop_dead if is_dead else voice.take
                    if (out := await self._run(take, delta)) is not None:
                        yield out
                    if voice.is_refused and not is_dead:  # what a dead end cost is told behind it
                        break
            if not voice.is_refused:
                return
            onward = await self._onward(voice)
        self.was_refused = True
        yield await self._run(voice.refuse)

    def _begin(self) -> Voice:
        return Voice(self._layers, choice=self._choice, refusal=self._plan.refusal)

    async def _said(self, onward: Onward) -> AsyncGenerator[Delta, None]:
        """Yield what is written from here on, the token that was chosen here first."""
        entry, request = onward.entry, onward.plan.request
        if entry is not None:
            told = (entry,) if self._plan.request.logprobs is not None else ()
            yield self._until_stop(Delta(text=entry.data.decode(), logprobs=told))
            if self._has_stopped:
                return
        if request.max_tokens == 0 and self._stops is not None:
            yield self._until_stop(Delta(finish="length"))
            return
        self._n_streams += 1
        async with aclosing(self._engine.stream(onward.plan)) as source:
            async for delta in source:
                if delta.usage is not None or delta.report is not None:
                    self._note(delta)
                elif delta.choice == 0:
                    yield self._until_stop(delta)
                    if self._has_stopped:
                        return

    def _is_dead_end(self, delta: Delta) -> bool:
        """Return whether nothing acceptable was left to write, and count that."""
        is_dead = delta.finish == "content_filter" and acts(self._engine, self._plan)
        self.n_dead_ends += is_dead
        return is_dead

    def _note(self, delta: Delta) -> None:
        self._usage = delta.usage or self._usage
        self.extra |= delta.extra
        self.report = {**self.report, **(delta.report or {})}

    async def _onward(self, voice: Voice) -> Onward | None:
        """Go back to where *voice* was refused; return how it goes on, None if it does not."""
        if not self._resuming.is_able or (place := await self._run(self._place, voice)) is None:
            return None
        onward = await self._resuming.onward(place, n_kept=voice.kept(place))
        if onward is None:
            return None
        self.n_rewound += await self._run(voice.go_back, place)
        self._n_before = voice.n_tokens + (onward.entry is not None)
        self._usage = None
        self._stops = Release(stop=self._plan.request.stop, text=place.written)
        self._stops.mark = len(place.written)
        return onward

    @staticmethod
    def _place(voice: Voice) -> Place | None:
        return voice.place

    @property
    def _has_stopped(self) -> bool:
        return self._stops is not None and self._stops.stopped

    def _until_stop(self, delta: Delta) -> Delta:
        """Return *delta* up to a stop text: the engine does not see one that began before."""
        stops = self._stops
        if stops is None or not (stops.stop or stops.text):
            return delta
        stops.write(delta.text)
        if delta.finish is not None:
            stops.stop = ()
        text, _ = stops.take()
        return replace(delta, text=text, finish="stop" if stops.stopped else delta.finish)

    async def _run(self, do: Callable[..., _T], *given: Any) -> _T:
        """Have *do* done: in a thread where it waits for the encoder."""
        return await asyncio.to_thread(do, *given) if self._layers.waits else do(*given)


def _about(request: Request) -> int:
    """Return about how many tokens the prompt has."""
    asked = request.prompt if request.kind == "text" else [text_of(m) for m in request.messages]
    n_chars = sum(map(len, asked)) if isinstance(asked, list) else len(asked)
    shown = [request.extra[key] for key in _SHOWN if request.extra.get(key)]
    n_chars += sum(len(json.dumps(one, default=str)) for one in shown)
    return -(-n_chars // _CHARS_PER_TOKEN)
