"""Roles without a model: what can be said by looking it up."""

from __future__ import annotations

from collections.abc import Sequence

from elision.agents.alu.auditor import Lookup
from elision.agents.alu.case import Case
from elision.agents.alu.purse import Purse
from elision.agents.alu.redaction import without
from elision.agents.alu.roles import NO_LEAK, Candidate, Draft, Finding, Leak, Score
from elision.agents.alu.words import telling, words_of

_KINDS: dict[str, Leak] = {"literal": "direct", "alias": "alias", "relation": "relation"}
_HINTED = 3
"""A critic's rating of what only hints at a target (the rubric: a relation)."""


class RuleAuditor(Lookup):
    """Objects to every place of a draft that comes near a target by its words."""

    async def judge(
        self, case: Case, draft: Draft, candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Finding, ...] | None:
        """See `Auditor.judge`. What the question alone comes near to is no finding."""
        wanted = {one.target_id for one in candidates}
        return tuple(
            Finding(near.target_id, _KINDS.get(near.channel, "description"), (e.start, e.end))
            for near in case.targets.shortlist(draft.text)
            for e in near.evidence
            if near.target_id in wanted
        )


class RuleEraser:
    """Leaves out the sentences that were found."""

    async def rewrite(
        self,
        case: Case,
        draft: Draft,
        candidates: Sequence[Candidate],
        findings: Sequence[Finding],
        purse: Purse,
    ) -> tuple[str, ...]:
        """See `Eraser.rewrite`. One rewriting, or none if nothing would be left."""
        left = without(draft.text, [one.span for one in findings])
        return (left,) if left else ()


class RuleCritic:
    """Rates by what the register finds in a text.

    A name or phrase is rated 1, a part of a name or a relation 3 unless the question said it
    already, and everything else 5: what only a reader would understand it does not see.
    """

    async def score(
        self, case: Case, variants: Sequence[str], candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Score, ...] | None:
        """See `Critic.score`."""
        return tuple(Score(_leak(case, text), _utility(case, text)) for text in variants)


def _leak(case: Case, text: str) -> int:
    asked = {(one.target_id, one.facets) for one in case.targets.shortlist(case.question)}
    if case.targets.given_away(text):
        return 1
    hints = {(one.target_id, one.facets) for one in case.targets.shortlist(text)}
    return _HINTED if hints - asked else NO_LEAK


def _utility(case: Case, text: str) -> int:
    asked = {word.form for word in telling(words_of(case.question))}
    said = {word.form for word in words_of(text)}
    return 1 + round(4 * len(asked & said) / len(asked)) if asked else 3
