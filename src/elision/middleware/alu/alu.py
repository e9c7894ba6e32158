"""ALU behind the pipeline: agents audit the reply to each request of the profiles that say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Final

from elision.agents.alu.disclosure import Disclosure
from elision.agents.alu.purse import Pace
from elision.contract import Delta, Request
from elision.guards.phrases.recent import Recent
from elision.middleware.alu.job import Job
from elision.middleware.alu.known import Commitment, Library
from elision.middleware.alu.speaking import check_fits

if TYPE_CHECKING:
    from elision.agents.alu.config import AluConfig
    from elision.contract import Engine
    from elision.encoders import Encoder
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.profiles import Profile

_SESSIONS: Final = 4096
"""Sessions of a tenant that are followed; the ones heard of longest ago are forgotten."""


class Alu:
    """Has agents draft, audit and rewrite replies.

    What it yields is guarded like any engine's deltas; the roles speak with the engine itself.

    Args:
        config: See `AluConfig`.
        commitment: Keys the invented names: a name is always asked about under the same other one.
        encoder: Returns the sentence encoder, loaded now if need be; None: questions are told by
            their words alone, which the report says.
    """

    def __init__(
        self,
        config: AluConfig,
        *,
        commitment: Commitment,
        encoder: Callable[[], Encoder] | None = None,
    ) -> None:
        self.config = config
        self._library = Library(commitment, encoder)
        self._told: dict[str, Recent[str, Disclosure]] = {}
        self._paces: dict[str, Pace] = {}

    async def run(
        self, engine: Engine, request: Request, rules: Enforcement, *, profile: Profile
    ) -> AsyncGenerator[Delta, None]:
        """Yield the reply to *request*, every choice as one delta and its end as another.

        The last delta has the usage of all roles and the report ``alu``; under a profile that is
        even, the usage is what the caller can see and the report says nothing of this request.

        Args:
            engine: Plays all roles; its guards are not asked.
            request: A chat, filled by its profile.
            rules: What is enforced.
            profile: Its ``alu`` says whether it must not show what is registered.

        Raises:
            RequestError: If it is no chat of text, before the first delta.
            GuardError: If encoder or guard breaks.
            ElisionError: If the engine cannot draft.
        """
        check_fits(request)
        known = await asyncio.to_thread(self._library.of, rules)
        job = Job(
            engine,
            request,
            profile,
            rules,
            known=known,
            config=self.config,
            pace=self._paces.setdefault(engine.name, Pace()),
            disclosure=self._disclosure(rules.tenant, request.options.get("session")),
        )
        replies = await job.replies()
        for n, reply in enumerate(replies):
            yield Delta(choice=n, text=reply.text)
            yield Delta(choice=n, finish=reply.finish)
        told = {**job.report(replies), "by_meaning": self._library.encoder is not None}
        yield Delta(usage=job.usage(replies), report={"engine": engine.name, "alu": told})

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop what is kept of *tenant*: compiled targets and sessions; return how many things."""
        sessions = self._told.pop(tenant, None)
        return self._library.drop(tenant) + (sessions is not None)

    def _disclosure(self, tenant: str, session: object) -> Disclosure | None:
        """Return what a session has heard; None if there is no session."""
        if not session:
            return None
        sessions = self._told.setdefault(tenant, Recent(entries=_SESSIONS))
        found = sessions.get(str(session))
        if found is None:
            found = Disclosure()
            sessions.put(str(session), found)
        return found
