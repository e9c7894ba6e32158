"""What is said where no variant may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elision.agents.alu.bounds import bounded
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig, Fallback
from elision.agents.alu.following import named
from elision.agents.alu.purse import Purse
from elision.agents.alu.redaction import DEFLECTIONS, UNKNOWN, minimal, sentence
from elision.agents.alu.roles import Candidate, Draft, Finding, Roles
from elision.contract import Finish
from elision.errors import ElisionError


class Said(NamedTuple):
    """A text with the name of the fallback that it is.

    Attributes:
        text: Empty for a refusal: the caller has a sentence for these.
        name: As set, or what was possible.
        finish: How it ends.
    """

    text: str
    name: Fallback
    finish: Finish = "stop"


@dataclass(frozen=True, slots=True)
class Instead:
    """One request's way out of a draft that may not leave.

    Attributes:
        roles: Who plays.
        config: Says what is wanted.
        case: The request.
        purse: Its budget.
        seen: What the conversation came near to.
    """

    roles: Roles
    config: AluConfig
    case: Case
    purse: Purse
    seen: tuple[Candidate, ...]

    async def of(
        self,
        draft: Draft,
        candidates: Sequence[Candidate],
        findings: Sequence[Finding] | None,
        *,
        hurried: bool,
    ) -> Said:
        """Return what is said instead of *draft*.

        Args:
            draft: What may not leave as it is.
            candidates: The shortlist.
            findings: What was found in it; None if it was not judged.
            hurried: Whether there are no calls or no time left: then nobody is asked.
        """
        wanted = "minimal_redaction" if hurried else self.config.fallback
        match wanted:
            case "natural_unknown":
                return await self._unknown()
            case "deflect":
                return self._sentence(DEFLECTIONS, wanted)
            case "refuse":
                return Said("", wanted, "content_filter")
            case "minimal_redaction":
                left = await asyncio.to_thread(self._redacted, draft.text, candidates, findings)
                if not left:
                    return self._sentence(UNKNOWN, wanted)
                return Said(left, wanted, "length" if draft.cut else "stop")

    def _sentence(self, stock: Sequence[str], name: Fallback) -> Said:
        """Return one of *stock*, as short as was asked for."""
        text, cut = bounded(sentence(stock, self.case.question), self.case.max_tokens)
        return Said(text, name, "length" if cut else "stop")

    def _redacted(
        self, draft: str, candidates: Sequence[Candidate], findings: Sequence[Finding] | None
    ) -> str:
        return minimal(draft, self.case.targets, candidates, findings)

    async def _unknown(self) -> Said:
        """Return a reply as about what never existed; one that tells anything is not taken."""
        draft = None
        if self.roles.unknown is not None and self.purse.affords("fallback"):
            try:
                draft = await self.roles.unknown.generate(self.case, self.purse)
            except (ElisionError, TimeoutError, OSError) as error:
                self.purse.faults.append(f"unknown:{type(error).__name__}")
        text = draft.text.strip() if draft else ""
        if draft and text and not await asyncio.to_thread(self._tells, text):
            return Said(text, "natural_unknown", "length" if draft.cut else "stop")
        return self._sentence(UNKNOWN, "natural_unknown")

    def _tells(self, text: str) -> bool:
        """Return whether *text* holds more of any target than the conversation does."""
        here = {(m.target_id, n) for m in self.case.targets.shortlist(text) for n in m.facets}
        asked = {(m.target_id, n) for m in self.seen for n in m.facets}
        return bool(self.case.targets.given_away(text, named(self.seen)) or here - asked)
