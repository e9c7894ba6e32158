"""ATLAS behind the pipeline: an episode for each request of the profile ``agentic``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.distil_rules import RuleDistiller
from elision.agents.atlas.experience import Experience
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import SpeakerTeacher
from elision.contract import Delta, Request, Usage
from elision.errors import BusyError, RequestError
from elision.guards.phrases.recent import Recent
from elision.memory.records import Scope
from elision.middleware.agentic.conversation import (
    Conversation,
    ConversationStudent,
    PipelineSpeaker,
    Run,
)
from elision.middleware.agentic.wanted import Wanted, wanted_of

if TYPE_CHECKING:
    from elision.agents.atlas.outcome import Outcome
    from elision.memory.memory import Memory
    from elision.middleware.remembering import MemorySource

ROOM: Final = "chat"
"""First label of the namespaces in which chats are remembered."""
_SCOPES: Final = 256
_LONGEST_S: Final = 86_400.0
_STRICTNESS: Final = ("on", "frozen", "shadow", "off")
_NOT_OF_ROLES: Final = frozenset({"memory", "profile", "session"})


class Agentic:
    """Works on requests as episodes: recalls, supervises, records.

    The roles speak through the pipeline under the profile ``guarded``, so whatever one of them says
    has passed every guard before another reads it or memory keeps it.

    Args:
        memory: Where it is remembered.
        config: How episodes run, where a request does not say.

    Attributes:
        config: Likewise.
    """

    def __init__(self, memory: MemorySource, config: AtlasConfig) -> None:
        self._memory = memory
        self.config = config
        self._experience = Experience(config.distiller.daily_tokens)
        self._distillers: Recent[Scope, RuleDistiller] = Recent(entries=_SCOPES)
        self._settling: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[Outcome]] = set()

    async def run(self, request: Request, run: Run, *, tenant: str) -> AsyncGenerator[Delta, None]:
        """Yield the reply to *request*; the last delta tells of the episode.

        An attempt that nobody validates is shown as it is written; any other once it has been.

        Args:
            request: A chat; ``model`` names an alias alone.
            run: Answers a request under the guarded profile.
            tenant: Whose memory.

        Raises:
            RequestError: If it is no chat that an agent can take, before the first delta.
            ElisionError: If the student cannot answer.
        """
        conversation = Conversation.of(request)
        wanted = wanted_of(request.options.get("memory"))
        config = self.config.model_copy(update=_overrides(wanted, self.config))
        until = time.monotonic() + (request.timeout_s or _LONGEST_S)
        shown: asyncio.Queue[Delta | None] = asyncio.Queue()
        voices = _Voices.of(request, run, conversation, until)
        student = ConversationStudent(
            conversation, voices.student, voices.planner, show=shown.put_nowait, config=config
        )
        scope = Scope(tenant, (ROOM, *wanted.namespace))
        atlas = await self._atlas(student, voices.teacher, scope, config)
        work = asyncio.ensure_future(atlas.run(_task(conversation, wanted, request)))
        work.add_done_callback(lambda _: shown.put_nowait(None))
        self._working.add(work)
        n_shown = 0
        try:
            while (delta := await shown.get()) is not None:
                if delta.text or delta.logprobs or delta.trace or delta.finish:
                    n_shown += 1
                    yield replace(delta, usage=None, report=None)
            outcome = await work
        finally:
            work.cancel()
            await asyncio.wait({work})
            self._working.discard(work)
            self._settle(atlas)
        _check_tried(outcome, until)
        for delta in _rest(outcome, voices.student, is_shown=n_shown > 0):
            yield delta

    async def memory(self) -> Memory:
        """Return where it is remembered, opened now if nothing was.

        Raises:
            ConfigError: If it cannot be opened.
        """
        return await asyncio.to_thread(self._memory)

    async def settled(self) -> None:
        """Wait until what was going on behind the replies is done."""
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def aclose(self) -> None:
        """End what is worked on, wait for what is being learned, close memory. Idempotent."""
        for work in self._working:
            work.cancel()
        if self._working:
            await asyncio.wait({*self._working})
        await self.settled()
        await asyncio.to_thread(self._memory.close)

    async def _atlas(
        self,
        student: ConversationStudent,
        teacher: PipelineSpeaker,
        scope: Scope,
        config: AtlasConfig,
    ) -> Atlas:
        memory = None if config.learning == "off" else await self.memory()
        own = config.teacher
        looking_on = SpeakerTeacher(
            teacher,
            max_tokens=own.max_tokens,
            temperature=own.temperature,
            sentences=own.sentences,
        )
        return Atlas(
            student,
            memory,
            teacher=looking_on,
            distiller=self._distiller(scope),
            scope=scope,
            config=config,
            experience=self._experience,
        )

    def _distiller(self, scope: Scope) -> RuleDistiller:
        """Return the scope's distiller: it counts what recurs, so it outlives a request."""
        found = self._distillers.get(scope)
        if found is None:
            found = RuleDistiller()
            self._distillers.put(scope, found)
        return found

    def _settle(self, atlas: Atlas) -> None:
        task = asyncio.ensure_future(atlas.settled())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


@dataclass(frozen=True, slots=True)
class _Voices:
    """How the roles speak for one request."""

    student: PipelineSpeaker
    planner: PipelineSpeaker
    teacher: PipelineSpeaker

    @classmethod
    def of(cls, request: Request, run: Run, conversation: Conversation, until: float) -> Self:
        """Give the student the caller's sampling and limits, and the other roles none of them."""
        session = request.options.get("session")
        own = {k: v for k, v in request.options.items() if k not in _NOT_OF_ROLES}
        # A session's earlier turns guard the answer too; what is kept of it is what leaves.
        read = {"session": session, "session_read_only": True} if session else {}
        asked = replace(request, options=own | read)
        aside = Request(model=request.model, options=own)
        return cls(
            PipelineSpeaker(asked, run, until=until, as_asked=True, earlier=conversation.earlier),
            PipelineSpeaker(aside, run, until=until, earlier=conversation.earlier),
            PipelineSpeaker(aside, run, until=until, earlier=conversation.told()),
        )


def _overrides(wanted: Wanted, config: AtlasConfig) -> dict[str, Any]:
    """Return what a request changes: it may ask memory for less than is set, never for more."""
    said: dict[str, Any] = {}
    if wanted.lane is not None:
        said["forced_lane"] = Lane(wanted.lane)
    if wanted.learning is not None:
        said["learning"] = max(wanted.learning, config.learning, key=_STRICTNESS.index)
    return said


def _check_tried(outcome: Outcome, until: float) -> None:
    """Raise if there was no budget for a single attempt: an empty reply would look like one."""
    if outcome.tried:
        return
    if time.monotonic() >= until:
        raise BusyError("the deadline passed before an attempt began; allow more time")
    raise RequestError(
        "the agent's budget is spent before an attempt; ask for less, or raise atlas.max_tokens",
        code="budget_exceeded",
    )


def _task(conversation: Conversation, wanted: Wanted, request: Request) -> Task:
    return Task(
        conversation.question,
        tags=wanted.tags,
        facts=wanted.facts,
        subjects=wanted.subjects,
        deadline_s=request.timeout_s,
    )


def _rest(outcome: Outcome, speaker: PipelineSpeaker, *, is_shown: bool) -> list[Delta]:
    """Return what has not been shown of a reply, and what ran."""
    total = outcome.ledger.total
    usage = Usage(
        prompt_tokens=total.tokens_in,
        completion_tokens=total.tokens_out,
        cached_tokens=total.tokens_cached,
    )
    report = {**speaker.last.report, **_report(outcome)}
    last = Delta(usage=usage, report=report)
    if is_shown:
        return [last]
    for choice in speaker.last.choices:
        if choice.text == outcome.output:  # else it was put together from several replies
            whole = Delta(
                text=choice.text, logprobs=choice.logprobs, trace=choice.trace, finish=choice.finish
            )
            return [whole, last]
    return [Delta(text=outcome.output, finish="stop"), last]


def _report(outcome: Outcome) -> dict[str, Any]:
    decision = outcome.decision
    return {
        "profile": "agentic",
        "episode": outcome.episode,
        "status": outcome.status,
        "lane": {
            "name": str(outcome.lane),
            "source": decision.source,
            "confidence": decision.confidence,
        },
        "attempts": len(outcome.tried),
        "learning": outcome.learning,
        "memory": {"shown": list(outcome.shown)},
        "roles": {
            role: {"calls": sums.calls, "tokens_in": sums.tokens_in, "tokens_out": sums.tokens_out}
            for role, sums in outcome.ledger.roles.items()
        },
    }
