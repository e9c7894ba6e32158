"""The student behind a chat: it answers the caller's conversation, through the guarded pipeline."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from elision.agents.atlas.injection import as_data
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.student import Attempt, Brief, Drafted, SpeakerStudent
from elision.agents.speaking import Said, counted
from elision.contract import Completion, Delta, Message, Request, collect, text_of
from elision.errors import RequestError

if TYPE_CHECKING:
    from elision.agents.atlas.config import AtlasConfig
    from elision.agents.atlas.task import Task

Run: TypeAlias = Callable[[Request], AsyncGenerator[Delta, None]]
"""Answers a request through the pipeline: whatever a role says has passed every guard."""

UNLIMITED: Final = 1 << 30
"""Tokens of a reply where the caller named no limit."""
_LEAST_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Conversation:
    """The caller's messages, taken apart for a student.

    Attributes:
        system: His instructions; empty if there are none.
        earlier: What was said before.
        question: The last thing he said: the task.
    """

    system: str
    earlier: tuple[Message, ...]
    question: str

    @classmethod
    def of(cls, request: Request) -> Conversation:
        """Take *request* apart.

        Raises:
            RequestError: If it is no chat that ends with the user's text, or asks for something
                that an agent has no form for.
        """
        if request.kind != "chat" or request.continue_final or request.n != 1:
            raise _unfit("takes chats, one choice each, and continues none")
        *before, last = request.messages
        if last.get("role") != "user" or not text_of(last).strip():
            raise _unfit("takes chats that end with a user's text")
        opens = bool(before) and before[0].get("role") in {"system", "developer"}
        system = text_of(before[0]) if opens else ""
        return cls(system, tuple(before[1:] if opens else before), text_of(last))

    def told(self) -> tuple[Message, ...]:
        """Return what stands before the question, as data for whoever looks on; none if nothing."""
        turns = [f"{m.get('role')}: {text_of(m)}" for m in self.earlier]
        if self.system:
            turns.insert(0, f"instructions: {self.system}")
        if not turns:
            return ()
        content = "The task ends this conversation:\n" + as_data("conversation", "\n".join(turns))
        return ({"role": "user", "content": content},)


def _unfit(what: str) -> RequestError:
    message = f"the profile agentic {what}; choose another profile, such as guarded"
    return RequestError(message, param="model", code="unsupported_parameter")


class PipelineSpeaker:
    """Speaks through the pipeline, under whatever request it is given.

    Args:
        request: What each of its requests begins from: model, options, limits.
        run: See `Run`.
        until: When the whole reply must stand, by `time.monotonic`.
        as_asked: Whether the request's own sampling is kept: so the student writes as the caller
            asked.
        earlier: What is put between instructions and question.

    Attributes:
        name: The model's.
        live: Is handed every delta as it comes; None: nobody is.
        last: The last reply.
    """

    def __init__(
        self,
        request: Request,
        run: Run,
        *,
        until: float,
        as_asked: bool = False,
        earlier: tuple[Message, ...] = (),
    ) -> None:
        self.name = request.model.rpartition("@")[0] or request.model
        self.live: Callable[[Delta], None] | None = None
        self.last = Completion()
        self._request = request
        self._run = run
        self._until = until
        self._as_asked = as_asked
        self._earlier = earlier

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`."""
        asked = self._asked(messages, max_tokens)
        if not self._as_asked:
            drawn = replace(asked.sampling, temperature=temperature, seed=seed)
            asked = replace(asked, sampling=drawn)
        begun = time.monotonic()
        async with aclosing(self._run(asked)) as deltas:
            self.last = await collect(self._told(deltas))
        wall_ms = (time.monotonic() - begun) * 1e3
        return counted(self.last.text, self.last.usage, asked.messages, wall_ms)

    def _asked(self, messages: Sequence[Message], max_tokens: int) -> Request:
        first, *rest = messages
        opened = [first] if first.get("content") else []  # no instructions: no system message
        limit = min(max_tokens, self._request.max_tokens or UNLIMITED)
        return replace(
            self._request,
            messages=(*opened, *self._earlier, *rest),
            max_tokens=None if limit >= UNLIMITED else limit,
            timeout_s=max(_LEAST_S, self._until - time.monotonic()),
        )

    async def _told(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        async for delta in deltas:
            if self.live is not None:
                self.live(delta)
            yield delta


class ConversationStudent:
    """Attempts a conversation's last question; an unsupervised attempt is shown as it is written.

    Args:
        conversation: The caller's.
        speaker: Speaks as the caller asked.
        planner: Speaks without the caller's limits: a plan is not the answer.
        show: Takes the deltas of an attempt that nobody validates.
        config: See `AtlasConfig`.
    """

    def __init__(
        self,
        conversation: Conversation,
        speaker: PipelineSpeaker,
        planner: PipelineSpeaker,
        *,
        show: Callable[[Delta], None],
        config: AtlasConfig,
    ) -> None:
        told: dict[str, Any] = {
            "system": conversation.system,
            "advice_role": config.advice.role,
        }
        self._inner = SpeakerStudent(speaker, max_tokens=UNLIMITED, **told)
        self._planner = SpeakerStudent(planner, max_tokens=config.student.max_tokens, **told)
        self._speaker = speaker
        self._show = show

    async def attempt(self, task: Task, brief: Brief) -> Attempt:
        """See `Student.attempt`."""
        alone = brief.lane is Lane.AUTO and brief.step is None
        self._speaker.live = self._show if alone else None
        try:
            return await self._inner.attempt(task, brief)
        finally:
            self._speaker.live = None

    async def plan(self, task: Task, brief: Brief) -> Drafted:
        """See `Planner.plan`."""
        return await self._planner.plan(task, brief)
