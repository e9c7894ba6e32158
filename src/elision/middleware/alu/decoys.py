"""Calls about targets that do not exist, so that every request takes the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from elision.agents.alu.covering import WORD
from elision.agents.alu.pseudonyms import Pseudonyms
from elision.agents.alu.roles import Candidate, Draft, Evidence, Finding, Roles
from elision.agents.alu.shortlist import TargetIndex
from elision.guards.targets import ForgetTarget, Phrase

if TYPE_CHECKING:
    from elision.agents.alu.case import Case
    from elision.agents.alu.purse import Purse

MOST: Final = 16
"""Decoys that are made for one register."""
_FILLER: Final = (
    "was born in a small town near the coast and went to school there before the family moved to "
    "the city where the first notes were written and a long work began that nobody has seen"
).split()


@dataclass(frozen=True, slots=True)
class Decoys:
    """Invented targets, as long in names and facts as registered ones. Immutable.

    Nothing registered is in their prompts: a model is not told of targets that nobody asked about.

    Attributes:
        index: Their index.
    """

    index: TargetIndex

    @classmethod
    def like(cls, targets: Sequence[ForgetTarget]) -> Decoys:
        """Make decoys in the form of some of *targets*."""
        key = token_hex(16)
        draw = Random(key)  # noqa: S311 -- which forms are taken is no secret
        models = draw.sample(targets, min(MOST, len(targets)))
        names = Pseudonyms(lambda data: f"{key}{data.hex()}")
        return cls(TargetIndex.compile([_like(one, names) for one in models]))

    def __repr__(self) -> str:
        return f"Decoys({len(self.index)})"

    async def fill(self, case: Case, draft: str, roles: Roles, purse: Purse) -> None:
        """Make the calls that a rewritten reply would have taken and this one did not.

        What comes of them is thrown away, errors included.

        Args:
            case: The request.
            draft: What its model wrote; the prompts quote it.
            roles: Those of the request.
            purse: Of the request: what it has paid for is not paid again.
        """
        case = replace(case, targets=self.index, disclosure=None)
        one = Random(token_hex(8)).choice(self.index.targets)  # noqa: S311 -- it is thrown away
        candidates = (Candidate(one.id, "relation", 0.5, (Evidence("draft", 0, len(draft)),)),)
        texts: Sequence[str] = ()
        if not purse.calls["judge"] and purse.affords("judge"):
            await roles.auditor.judge(case, Draft(draft), candidates, purse)
        if not purse.calls["eraser"] and purse.affords("rewrite"):
            findings = (Finding(one.id, "relation", (0, len(draft))),)
            texts = await roles.eraser.rewrite(case, Draft(draft), candidates, findings, purse)
        if not purse.calls["critic"] and purse.affords("critic"):
            await roles.critic.score(case, texts or (draft,), candidates, purse)


def _like(target: ForgetTarget, names: Pseudonyms) -> ForgetTarget:
    """Return an invented target with as many names and facts, each about as long."""
    return ForgetTarget(
        id=target.id,
        title="-",
        kind=target.kind,
        names=tuple(_renamed(name, names) for name in target.names),
        answers=tuple(map(_filled, target.answers)),
        phrases=tuple(Phrase(text=_filled(phrase.text)) for phrase in target.phrases),
        probes=tuple(map(_filled, target.probes)),
    )


def _renamed(name: str, names: Pseudonyms) -> str:
    return WORD.sub(lambda found: names.word(found[0], "family").title(), name)


def _filled(text: str) -> str:
    """Return as many words as *text* has, and none of them."""
    return " ".join(islice(cycle(_FILLER), max(1, len(text.split()))))
