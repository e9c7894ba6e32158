"""How closely a task is supervised, and what a decision on that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias

Source: TypeAlias = Literal[
    "forced", "override", "history", "cost", "no_history", "probe", "explore"
]
ProbeState: TypeAlias = Literal["off", "used", "failed"]


class Lane(StrEnum):
    """How an episode is supervised, from the least to the most.

    ``auto``: the student alone. ``paired``: the teacher validates each attempt. ``coach``: and
    corrects the plan beforehand. ``escalate``: and validates each step of it.
    """

    AUTO = "auto"
    PAIRED = "paired"
    COACH = "coach"
    ESCALATE = "escalate"

    @property
    def rank(self) -> int:
        """0 to 3; rises with supervision."""
        return LANES.index(self)

    @property
    def closer(self) -> Lane:
        """The lane with one degree more of supervision, or itself."""
        return LANES[min(self.rank + 1, len(LANES) - 1)]

    @property
    def looser(self) -> Lane:
        """The lane with one degree less, or itself."""
        return LANES[max(self.rank - 1, 0)]


LANES: Final = tuple(Lane)


class Row(Protocol):
    """A past episode, as a router sees it; its reward is known."""

    @property
    def similarity(self) -> float:
        """Cosine of its task to the one at hand."""
        ...

    @property
    def reward(self) -> float:
        """0 to 1."""
        ...

    @property
    def lane(self) -> str:
        """The lane it began in."""
        ...

    @property
    def retried(self) -> bool:
        """Whether the reward took more than one attempt."""
        ...

    @property
    def age_days(self) -> float:
        """Days since it ran."""
        ...


@dataclass(frozen=True, slots=True)
class Belief:
    """What similar episodes say of the student's doing a task without help.

    Attributes:
        a: Of the Beta posterior.
        b: Likewise.
        n_eff: Kish's effective number of episodes; knows nothing of how similar they are.
        weight: Sum of their weights: knows.
        confidence: Lower quantile of the posterior.
    """

    a: float
    b: float
    n_eff: float
    weight: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Probed:
    """What a model said of a task.

    Attributes:
        lane: The lane it would take.
        confidence: Its probability that the student does the task without help.
    """

    lane: Lane
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A lane, and why: figures and codes only.

    Attributes:
        lane: See `Lane`.
        confidence: Behind it, the probe's word included; None where nothing was known.
        n_eff: See `Belief`.
        weight: See `Belief`.
        source: What decided.
        propensity: Probability with which this lane was drawn.
        probe: Whether a model was asked, and whether it answered.
        neighbours: Similarity and reward of the most similar episodes.
    """

    lane: Lane
    confidence: float | None = None
    n_eff: float = 0.0
    weight: float = 0.0
    source: Source = "no_history"
    propensity: float = 1.0
    probe: ProbeState = "off"
    neighbours: tuple[tuple[float, float], ...] = ()

    def told(self) -> Mapping[str, Any]:
        """Return it as JSON, for the episode's row."""
        return {
            "lane": self.lane.value,
            "confidence": self.confidence,
            "n_eff": round(self.n_eff, 6),
            "weight": round(self.weight, 6),
            "source": self.source,
            "propensity": self.propensity,
            "probe": self.probe,
            "neighbours": [list(pair) for pair in self.neighbours],
        }
