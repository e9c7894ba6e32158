"""ATLAS behind the pipeline: an episode for each request of the profile ``agentic``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.distil_rules import RuleDistiller
from elision.agents.atlas.experience import Experience
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import SpeakerTeacher
from elision.contract import Delta, Request, Usage
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


class Agentic:
    """Works on requests as episodes: recalls, supervises, records.

    The roles speak through the pipeline under the profile ``guarded``, so whatever one of them says
    has passed every guard before another reads it or memory keeps it.

    Args:
        memory: Where it is remembered.
        config: How episodes run, where a request does not say.
    """

    def __init__(self, memory: MemorySource, config: AtlasConfig) -> None:
        self._memory = memory
        self._config = config
        self._experience = Experience(config.distiller.daily_tokens)
        self._distillers: Recent[Scope, RuleDistiller] = Recent(entries=_SCOPES)
        self._settling: set[asyncio.Task[None]] = set()

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
        plain = replace(request, options=_inner(request.options))
        shown: asyncio.Queue[Delta | None] = asyncio.Queue()
        speaker = PipelineSpeaker(plain, run, as_caller=True, earlier=conversation.earlier)
        student = ConversationStudent(conversation, speaker, show=shown.put_nowait)
        atlas = await self._atlas(
            student, SpeakerTeacher(PipelineSpeaker(plain, run)), wanted, tenant
        )
        work = asyncio.ensure_future(atlas.run(_task(conversation, wanted, request)))
        work.add_done_callback(lambda _: shown.put_nowait(None))
        said = ""
        try:
            while (delta := await shown.get()) is not None:
                said += delta.text
                if delta.text or delta.logprobs or delta.trace or delta.finish:
                    yield replace(delta, usage=None, report=None)
            outcome = await work
        finally:
            work.cancel()
            self._settle(atlas)
        for delta in _rest(outcome, speaker, said):
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
        """Wait for what goes on, then close memory. Idempotent."""
        await self.settled()
        await asyncio.to_thread(self._memory.close)

    async def _atlas(
        self, student: ConversationStudent, teacher: SpeakerTeacher, wanted: Wanted, tenant: str
    ) -> Atlas:
        config = self._config.model_copy(update=_overrides(wanted))
        memory = None if config.learning == "off" else await self.memory()
        scope = Scope(tenant, (ROOM, *wanted.namespace))
        return Atlas(
            student,
            memory,
            teacher=teacher,
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


def _inner(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the caller's ``elision`` object concerns each reply of a role."""
    return {key: value for key, value in options.items() if key not in {"memory", "profile"}}


def _overrides(wanted: Wanted) -> dict[str, Any]:
    lane = None if wanted.lane is None else Lane(wanted.lane)
    said = {"learning": wanted.learning, "forced_lane": lane}
    return {key: value for key, value in said.items() if value is not None}


def _task(conversation: Conversation, wanted: Wanted, request: Request) -> Task:
    return Task(
        conversation.question,
        tags=wanted.tags,
        facts=wanted.facts,
        subjects=wanted.subjects,
        deadline_s=request.timeout_s,
    )


def _rest(outcome: Outcome, speaker: PipelineSpeaker, said: str) -> list[Delta]:
    """Return what has not been shown of a reply, and what ran."""
    total = outcome.ledger.total
    usage = Usage(
        prompt_tokens=total.tokens_in,
        completion_tokens=total.tokens_out,
        cached_tokens=total.tokens_cached,
    )
    report = {**speaker.last.report, **_report(outcome)}
    last = Delta(usage=usage, report=report)
    if said:
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
