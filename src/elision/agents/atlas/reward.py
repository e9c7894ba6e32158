"""The reward of an episode: how good its outcome was, and who says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from elision.errors import RequestError

Source: TypeAlias = Literal["env", "checker", "human", "judge", "arbiter"]

PRIORITY: Final = {"env": 3, "checker": 3, "human": 2, "judge": 1, "arbiter": 1}
"""Whose word counts more (atlas_memory.md 2.8)."""
MEASURED: Final = frozenset({"env", "checker"})
"""Sources that compare with the truth; every other reward is somebody's opinion."""
LONGEST_RATIONALE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Principle:
    """What a judge decided by.

    Attributes:
        name: Of a few words.
        weight: Its share; those of one judge sum to 1.
    """

    name: str = field(repr=False)
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """How good an outcome was. An unknown reward is no reward, never one of 0.

    Attributes:
        score: 0 to 1.
        success: Whether that counts as success.
        source: Who says so.
        samples: The single scores behind it, in the order in which they were given.
        std: Their population standard deviation; 0 of one.
        uncertainty: The largest that a judge told, 0 to 1; None if nobody did.
        escalated: Whether an arbiter was asked.
        principles: Of the sample nearest to the score.
        rationale: Likewise; at most `LONGEST_RATIONALE` characters.
        model: Which model judged; empty if none did.

    Raises:
        RequestError: If score or uncertainty are outside 0 to 1, or the source is unknown.
    """

    score: float
    success: bool
    source: Source
    samples: tuple[float, ...] = ()
    std: float = 0.0
    uncertainty: float | None = None
    escalated: bool = False
    principles: tuple[Principle, ...] = field(default=(), repr=False)
    rationale: str = field(default="", repr=False)
    model: str = ""

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise RequestError(f"a reward comes from {', '.join(get_args(Source))}", param="source")
        for name in ("score", "uncertainty"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RequestError(f"{name} is {value}, not between 0 and 1", param=name)

    @property
    def measured(self) -> bool:
        """Whether it was compared with the truth."""
        return self.source in MEASURED


def better_founded(standing: Reward | None, newer: Reward | None) -> Reward | None:
    """Return the reward that counts: of the higher priority; of two alike, the newer."""
    if standing is None or newer is None:
        return newer or standing
    return newer if PRIORITY[newer.source] >= PRIORITY[standing.source] else standing


def teaching(before: Reward | None, after: Reward | None) -> float | None:
    """Return what guidance was worth: the reward after it minus the one before, -1 to 1.

    None unless both attempts were compared with the truth: two opinions do not measure a lesson.
    """
    if before is None or after is None or not (before.measured and after.measured):
        return None
    return after.score - before.score
