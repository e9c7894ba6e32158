"""What a scripted student may learn: it can do a thing once somebody has told it how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

CHARS_PER_TOKEN: Final = 4
"""Characters of a token in the token model of the scripted worlds."""


@dataclass(frozen=True, slots=True)
class Skill:
    """A way of doing things that an instruction teaches.

    Attributes:
        name: Its name in reports.
        instruction: What a teacher says and an entry keeps, at most 120 characters; whoever reads
            it has the skill for that attempt.
    """

    name: str
    instruction: str

    def told_by(self, text: str) -> bool:
        """Return whether *text* holds the instruction, whatever its case and white space."""
        return _plain(self.instruction) in _plain(text)


def known(
    skills: Iterable[Skill], told: Iterable[str], *, by_luck: float = 0.0, seed: str = ""
) -> frozenset[str]:
    """Return the names of the *skills* a student has in one attempt.

    Args:
        skills: All that there are.
        told: What it reads: advice, guidance, plan.
        by_luck: Probability of having a skill that nobody told it of.
        seed: Of the luck: with the same seed, the same skills are had in every arm.
    """
    text = "\n".join(told)
    return frozenset(
        skill.name for skill in skills if skill.told_by(text) or chance(seed, skill.name) < by_luck
    )


def chance(*named: str) -> float:
    """Return a number of [0, 1) that depends on the texts *named*, and on nothing else."""
    digest = blake2b("\0".join(named).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


def n_tokens(*texts: str) -> int:
    """Return the tokens of *texts* in the token model: one for four characters."""
    return sum(-(-len(text) // CHARS_PER_TOKEN) for text in texts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
