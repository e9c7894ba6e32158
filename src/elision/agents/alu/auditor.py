"""The auditor: looks up what a draft may give away, then has a model judge it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from elision.agents.alu import prompts
from elision.agents.alu.answers import FoundAt, Judged, only
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Candidate, Draft, Finding
from elision.agents.alu.shortlist import merged
from elision.agents.atlas.injection import plain
from elision.agents.speaking import Speaker
from elision.contract import Message


class Lookup:
    """Shortlists by the register's index; no model is asked.

    Args:
        config: Says how many, and what is compared by meaning.
    """

    def __init__(self, config: AluConfig) -> None:
        self.config = config

    async def shortlist(self, case: Case, draft: Draft | None) -> tuple[Candidate, ...]:
        """See `Auditor.shortlist`; of a draft, what it comes near to by itself."""
        if draft is None:
            seen = await asyncio.to_thread(case.targets.screen, case.messages)
            turns = case.recent(self.config.n_turns)
            near = await case.targets.near(turns, self.config.t_embedding)
            return merged((*seen, *near), self.config.shortlist)
        found = case.targets.shortlist(draft.text)
        if self.config.mode == "strict":
            said: Message = {"role": "assistant", "content": draft.text}
            near = await case.targets.near((said,), self.config.t_embedding)
            found = merged((*found, *near))
        return found[: self.config.shortlist]


class SpeakerAuditor(Lookup):
    """Shortlists by index and has a model judge.

    Args:
        speaker: The model.
        config: See `AluConfig`.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        super().__init__(config)
        self._speaker = speaker

    async def judge(
        self, case: Case, draft: Draft, candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Finding, ...] | None:
        """See `Auditor.judge`. A reply of no use is asked for once more, with temperature 0.

        Of no use: no JSON, two objects, a target that was not listed, a quote that the draft does
        not hold.
        """
        opaque = {f"T{n}": one.target_id for n, one in enumerate(candidates, start=1)}
        asked = prompts.for_judge(
            case.recent(self.config.n_turns), draft.text, subjects_of(case, opaque)
        )
        for attempt, temperature in enumerate((self.config.judge_temperature, 0.0)):
            purse.retries += attempt
            reply = await purse.hear(
                "judge",
                self._speaker,
                asked,
                max_tokens=self.config.judge_tokens,
                temperature=temperature,
                seed=case.seed,
            )
            if reply is None:
                return None
            found = read(reply, draft.text, opaque)
            if not isinstance(found, str):
                return found
            asked = prompts.mended(asked, found)
        return None


def subjects_of(case: Case, opaque: Mapping[str, str]) -> dict[str, str]:
    """Return what roles are told of the shortlisted targets, by ids of this prompt only."""
    return {short: case.targets.described(target) for short, target in opaque.items()}


def read(reply: str, draft: str, opaque: Mapping[str, str]) -> tuple[Finding, ...] | str:
    """Return what a judge found, or what is wrong with its reply.

    Args:
        reply: Its words.
        draft: What it judged.
        opaque: Ids of the prompt to ids of the register.
    """
    judged = only(reply, Judged)
    if isinstance(judged, str):
        return judged
    found = [_finding(one, draft, opaque) for one in judged.findings]
    faults = [one for one in found if isinstance(one, str)]
    return faults[0] if faults else tuple(one for one in found if isinstance(one, Finding))


def _finding(one: FoundAt, draft: str, opaque: Mapping[str, str]) -> Finding | str:
    if one.target not in opaque:
        return "a target is none of the subjects"
    span = located(one.quote, draft)
    if span is None:
        return "a quote is not in the reply"
    return Finding(opaque[one.target], one.kind, span, one.confidence)


def located(quote: str, draft: str) -> tuple[int, int] | None:
    """Return where *quote* stands in *draft*, white space and case aside; None if nowhere.

    What only stands in the draft as a judge reads it, without control characters and fences, is
    taken to be all of it.
    """
    words = [re.escape(word) for word in quote.split()]
    if not words:
        return None
    pattern = re.compile(r"\s+".join(words), re.IGNORECASE)
    if match := pattern.search(draft):
        return match.span()
    return (0, len(draft)) if pattern.search(plain(draft)) else None
