"""One request on its way through ALU."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from elision.agents.alu.case import Case, Outcome
from elision.agents.alu.casting import cast
from elision.agents.alu.pipeline import AluPipeline
from elision.agents.alu.purse import Pace, Purse
from elision.agents.alu.redaction import UNKNOWN, sentence
from elision.agents.alu.revealing import without_last_word
from elision.agents.alu.vanilla import SpeakerUnknown, SpeakerVanilla
from elision.contract import Finish, Request, Usage, text_of
from elision.middleware.alu.evenness import EvenAuditor, passes, visible_usage
from elision.middleware.alu.plain import plainly_asked
from elision.middleware.alu.speaking import EngineVoice
from elision.middleware.alu.unknowing import Unknowing

if TYPE_CHECKING:
    from elision.agents.alu.config import AluConfig
    from elision.agents.alu.disclosure import Disclosure
    from elision.agents.alu.roles import Roles
    from elision.agents.alu.substitution import Substitution
    from elision.contract import Engine
    from elision.middleware.alu.known import Known
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.profiles import Profile

_LONGEST_S: Final = 86_400.0
_GUARDS_SHARE, _GUARDS_S = 0.2, 2.0
"""What is left of a request's time for the guards: this share of it, this much at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice, with what it took.

    Attributes:
        text: As it may go on to the guards.
        finish: Why it ended.
        outcome: What the agents came to.
    """

    text: str = field(repr=False)
    finish: Finish
    outcome: Outcome


class Job:
    """One request, with one pipeline for each of its choices.

    Args:
        engine: Plays all roles.
        request: What is asked.
        profile: Says whether it must not show what is registered.
        rules: What is enforced.
        known: What ALU made of that.
        config: See `AluConfig`.
        pace: How long the stages take with this engine.
        disclosure: What the session has heard; None without one.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        profile: Profile,
        rules: Enforcement,
        *,
        known: Known,
        config: AluConfig,
        pace: Pace,
        disclosure: Disclosure | None,
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._known = known
        self._profile = profile
        self._even = profile.alu == "even"
        self._request = plainly_asked(request) if self._even else request
        # A refusal is said to nobody else, and nobody else's reply is merged: either would tell.
        even = {"fallback": "natural_unknown", "composer": "select"} if self._even else {}
        self._config = config.model_copy(update=even)
        limit = min(request.timeout_s or _LONGEST_S, config.deadline_s or _LONGEST_S)
        self._until = time.monotonic() + limit - min(_GUARDS_S, limit * _GUARDS_SHARE)
        self._pace = pace
        self._disclosure = disclosure
        self._roles = self._cast()

    async def replies(self) -> list[Reply]:
        """Return every choice; the first that fails ends the others.

        Raises:
            ElisionError: See `Alu.run`.
        """
        tasks = [asyncio.ensure_future(self._reply(n)) for n in range(self._request.n)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _reply(self, choice: int) -> Reply:
        if not self._even:
            outcome = await self._run(self._case(self._request, choice))
            return self._stopped(outcome, outcome.text, outcome.finish)
        hidden = await asyncio.to_thread(self._known.names.hide, self._request.messages)
        request = replace(self._request, messages=hidden.messages)
        case = self._case(request, choice)
        outcome = await self._run(case)
        await self._fill(case, outcome)
        return self._stopped(outcome, await self._told(request, hidden, outcome), outcome.finish)

    def usage(self, replies: Sequence[Reply]) -> Usage:
        """Return what all roles took; where it must show nothing, what the caller can see."""
        if self._even:
            return visible_usage(self._request, [one.text for one in replies])
        every = [one.outcome.usage for one in replies]
        return Usage(
            prompt_tokens=sum(one.prompt_tokens for one in every),
            completion_tokens=sum(one.completion_tokens for one in every),
            cached_tokens=sum(one.cached_tokens for one in every),
        )

    def report(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """Return what ran; where it must show nothing, nothing of this request."""
        told: dict[str, Any] = {"even": self._even}
        if not self._even:
            told["choices"] = [one.outcome.verdict.to_report() for one in replies]
        return told

    def _cast(self) -> Roles:
        config = self._config
        roles = cast(self._voice(), config)
        vanilla = SpeakerVanilla(self._voice(as_asked=True), config)
        if self._even:
            # An unknown is worded by nobody: the call would be one that others' requests lack.
            even = EvenAuditor(roles.auditor)
            return replace(roles, vanilla=vanilla, auditor=even, unknown=None)
        told = SpeakerUnknown(self._voice(), config)
        return replace(roles, vanilla=vanilla, unknown=Unknowing(vanilla, told, self._known.names))

    def _voice(self, *, as_asked: bool = False) -> EngineVoice:
        # Where a stop is found must not depend on the name that the model reads.
        request = replace(self._request, stop=()) if self._even else self._request
        return EngineVoice(
            self._engine,
            request,
            tenant=self._rules.tenant,
            until=self._until,
            as_asked=as_asked,
        )

    def _case(self, request: Request, choice: int) -> Case:
        sampling = request.sampling
        seed = self._config.seed if sampling.seed is None else sampling.seed
        return Case(
            messages=request.messages,
            targets=self._known.index,
            tenant=self._rules.tenant,
            deadline=self._until,
            seed=None if seed is None else seed + choice,
            max_tokens=request.max_tokens,
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            disclosure=self._disclosure,
        )

    async def _run(self, case: Case) -> Outcome:
        pipeline = AluPipeline(self._roles, self._config)
        pipeline.pace = self._pace
        return await pipeline.run(case)

    async def _fill(self, case: Case, outcome: Outcome) -> None:
        """Make the calls that others of this register's requests take; none without targets."""
        if not len(self._known.index):
            return
        purse = Purse(
            most_calls=self._config.max_calls,
            clock=time.monotonic,
            pace=self._pace,
            deadline=self._until,
            calls=Counter(outcome.verdict.calls),
        )
        await self._known.decoys.fill(case, outcome.text, self._roles, purse)

    async def _told(self, request: Request, hidden: Substitution, outcome: Outcome) -> str:
        """Return the reply with names in it; what no guard lets pass becomes a plain unknown.

        Of one that was broken off the last word is gone: it might be half an invented name.
        """
        unknown = sentence(UNKNOWN, text_of(self._request.messages[-1]))
        is_cut = outcome.finish == "length"
        text = without_last_word(outcome.text) if is_cut else outcome.text
        if not self._rules.targets:
            return text
        if not await passes(self._profile, self._rules, request, text):
            return unknown
        told = await asyncio.to_thread(hidden.reveal, text, cut=is_cut)
        found = await asyncio.to_thread(self._rules.checker.check_text, told)
        is_read = found.covered or not self._rules.guard.n_targets
        return told if found.verdict == "allow" and is_read else unknown

    def _stopped(self, outcome: Outcome, text: str, finish: Finish) -> Reply:
        """Return the reply up to the caller's first stop; where one was found, that is its end."""
        stops = [at for at in map(text.find, self._request.stop) if at >= 0]
        if stops and self._even:
            finish = "stop"
        return Reply(text[: min(stops, default=len(text))], finish, outcome)
