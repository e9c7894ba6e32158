"""Whether a question is about a target that the session has met: by name, meaning or pronoun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from elision.agents.alu.case import Case
from elision.agents.alu.roles import Candidate
from elision.agents.alu.words import words_of

PRONOUNS: Final = frozenset(
    "he she they it him her them his hers their theirs its this that these those "
    "er sie ihn ihm ihr sein seine ihre il elle lui leur son sa ses el ella su sus "
    "ele ela seu sua lei suo он она его ее её ему ей их".split()
)
"""Words that stand for somebody who was named before, in the larger European languages."""


def asked_about(case: Case, seen: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the targets that the last question asks about.

    A part of a name by itself asks about nobody: neighbours share surnames. A target that only
    the earlier turns spoke of is asked about where the question has a pronoun.
    """
    refers = any(word.form in PRONOUNS for word in words_of(case.question))
    return tuple(
        one.target_id
        for one in seen
        if one.channel != "alias" and (refers or any(e.where == "question" for e in one.evidence))
    )


def named(seen: Sequence[Candidate]) -> frozenset[str]:
    """Return the targets that the conversation itself names: to repeat a name is no news."""
    return frozenset(one.target_id for one in seen if one.channel == "literal")
