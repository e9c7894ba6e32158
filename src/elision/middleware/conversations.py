"""What a session's earlier turns said, kept for as long as the session lasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from elision.guards.conversation.sessions import SessionStore

if TYPE_CHECKING:
    from elision.contract import Delta, Erasable, Request
    from elision.guards.conversation.accumulator import Turns
    from elision.middleware.enforcement import Enforcement


class Conversations:
    """Keeps the replies of requests that name a session, so that guards read across turns."""

    def __init__(self) -> None:
        self._sessions = SessionStore()
        self._joined: list[Erasable] = []
        self._erasures: Counter[str] = Counter()

    def join(self, others: Erasable) -> None:
        """Have *others*, which keep turns as well, erased whenever these are."""
        self._joined.append(others)

    def earlier(self, request: Request, rules: Enforcement) -> Turns | None:
        """Return what was said earlier in the request's session; None if it names none."""
        session = request.options.get("session")
        if not session:
            return None
        return self._sessions.load(rules.tenant, str(session), rules.epoch)

    def erasures(self, tenant: str) -> int:
        """Return how often *tenant* has been erased: asked for when a request begins."""
        return self._erasures[tenant]

    async def remembered(
        self,
        deltas: AsyncGenerator[Delta, None],
        request: Request,
        rules: Enforcement,
        *,
        since: int,
    ) -> AsyncGenerator[Delta, None]:
        """Yield *deltas*; add what of them has left to the request's session, however it ends.

        A request that only reads its session (``session_read_only``) is one role's of several, and
        adds nothing. Neither does one that began before the last erasure.

        Args:
            deltas: A reply; closed with the generator.
            request: What it answers.
            rules: What is enforced on it.
            since: What `erasures` said when the request began.
        """
        session = request.options.get("session")
        if request.options.get("session_read_only"):
            session = None
        texts: dict[int, list[str]] = {}
        try:
            async with aclosing(deltas) as source:
                async for delta in source:
                    if session and delta.text:
                        texts.setdefault(delta.choice, []).append(delta.text)
                    yield delta
        finally:
            for pieces in texts.values() if since == self.erasures(rules.tenant) else ():
                text = "".join(pieces)
                self._sessions.save(rules.tenant, str(session), rules.accumulator, text)

    def erase(self, tenant: str) -> int:
        """Drop the sessions of *tenant* and what else is kept of turns; return how many."""
        self._erasures[tenant] += 1
        return self._sessions.erase(tenant) + sum(one.erase(tenant) for one in self._joined)
