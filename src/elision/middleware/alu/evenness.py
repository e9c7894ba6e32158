"""What the profile ``discreet`` does so that nobody can tell what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from elision.agents.alu.parts import parts_of
from elision.agents.alu.words import telling, words_of
from elision.agents.speaking import estimate
from elision.contract import ALLOW, Request, Usage, text_of

if TYPE_CHECKING:
    from elision.agents.alu.case import Case
    from elision.agents.alu.purse import Purse
    from elision.agents.alu.roles import Auditor, Candidate, Draft, Finding
    from elision.guards.targets import Kind
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.profiles import Profile

_LEAST_PART: Final = 3


@dataclass(frozen=True, slots=True)
class EvenAuditor:
    """An auditor that suspects nobody because of a name that somebody else may bear.

    A registered name is hidden before anybody reads it. Were a name that merely shares a part with
    one suspected, it would be the unregistered name that is treated otherwise.

    Attributes:
        inner: Does the work.
    """

    inner: Auditor

    async def shortlist(self, case: Case, draft: Draft | None) -> tuple[Candidate, ...]:
        """See `Auditor.shortlist`."""
        found = await self.inner.shortlist(case, draft)
        said = {word.form for m in case.messages for word in words_of(text_of(m))}
        return tuple(one for one in found if not _only_shares(one, case, said))

    async def judge(
        self, case: Case, draft: Draft, candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Finding, ...] | None:
        """See `Auditor.judge`."""
        return await self.inner.judge(case, draft, candidates, purse)


def _only_shares(one: Candidate, case: Case, said: set[str]) -> bool:
    """Return whether a candidate is one for no more than some parts of a name that were said.

    Where all of them were said, in whatever order and however far apart, it is his.
    """
    if one.channel not in {"alias", "embedding"} or one.facets:
        return False
    target = case.targets.target(one.target_id)
    named = [_telling_parts(name, target.kind) for name in target.names]
    return any(parts & said for parts in named) and not any(
        parts and parts <= said for parts in named
    )


def _telling_parts(name: str, kind: Kind) -> set[str]:
    if kind == "person":
        return {part for part in parts_of(name) if len(part) >= _LEAST_PART}
    return {word.form for word in telling(words_of(name))}


async def passes(profile: Profile, rules: Enforcement, hidden: Request, text: str) -> bool:
    """Return whether every guard lets *text* pass as the reply to a request without names.

    So what a model makes up about somebody unknown is compared with what must not be said under
    the name it was made up for, and never under the registered one.

    Args:
        profile: The request's.
        rules: What is enforced.
        hidden: The request, its registered names hidden.
        text: A reply to it, likewise.

    Raises:
        GuardError: If a guard breaks.
    """
    from elision.middleware.planning import Defence

    thorough = replace(profile, semantic=True)
    defence = await Defence.of(thorough, rules, hidden, None, on_failure=lambda: None)
    hold = await defence.hold(hidden)

    def judged() -> bool:
        first, verdict = hold.feed(text)
        rest, last = hold.finish() if verdict == ALLOW else ("", verdict)
        return verdict == last == ALLOW and first + rest == text

    return await asyncio.to_thread(judged)


def visible_usage(request: Request, replies: Sequence[str]) -> Usage:
    """Return tokens counted from what the caller sees: what the roles read would tell the rest."""
    return Usage(
        prompt_tokens=sum(estimate(text_of(message)) for message in request.messages),
        completion_tokens=sum(map(estimate, replies)),
        extra={"estimated": True},
    )
