"""What the gate says of a prompt: how near it comes to which targets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How aggressive the semantic layer is. Phrases hold at every level."""

    CLOSED = 0
    """The prompt has nothing to do with any target: the answer is not looked at."""
    WATCH = 1
    """It may have: sentences are held and compared with what must not be said."""
    OPEN = 2
    """It has: every layer is on, and the target's action applies."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A target that a prompt comes near to.

    Attributes:
        target_id: Which.
        score: Greatest cosine between a view of the prompt and one of the target's probes, the
            bonus for a name included.
        named: Whether one of the target's names stands in the prompt.
    """

    target_id: str
    score: float
    named: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the gate says of one prompt.

    Attributes:
        level: See `Level`.
        suspects: The nearest targets, best first; none when closed.
        score: The best suspect's score, told also when closed.
        n_views: Views of the prompt that were compared.
        covered: Whether every part of the prompt was in one of them.
    """

    level: Level
    suspects: tuple[Suspect, ...] = ()
    score: float = 0.0
    n_views: int = 0
    covered: bool = True


CLOSED = Assessment(level=Level.CLOSED)
