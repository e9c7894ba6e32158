"""What an episode came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from elision.agents.atlas.config import Learning
from elision.agents.atlas.lanes import Decision, Lane
from elision.agents.atlas.ledger import Ledger
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.student import Attempt
from elision.agents.atlas.teacher import Validation

Status: TypeAlias = Literal["passed", "failed", "unvalidated"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt, and what was found of it.

    Attributes:
        lane: How it was supervised.
        attempt: What the student came to.
        validation: What the teacher found; ``valid`` is None where nobody could say.
        plan: The steps that it was given; None without a plan.
        fault: Why nobody could say: ``no_teacher``, ``budget``, ``timeout`` or the error's class;
            None if somebody did, or ``auto`` asks nobody.
        failed_steps: Of a plan that was done step by step: steps that stayed invalid.
    """

    lane: Lane
    attempt: Attempt
    validation: Validation
    plan: tuple[str, ...] | None = field(default=None, repr=False)
    fault: str | None = None
    failed_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an episode came to.

    Attributes:
        output: The last attempt's answer; empty if there was no budget for one.
        episode: The episode's id, for a later reward; None where learning is ``off``.
        status: ``passed`` or ``failed`` by the truth where it is known, then by the teacher's
            word on the last attempt, then by the judges'; ``unvalidated`` if nobody could say.
        lane: The lane it began in.
        decision: Why that lane.
        tried: All attempts, in order.
        reward: None where it is unknown, which is not 0.
        ledger: What was spent by now, over all roles; the distiller's share comes later.
        learning: Under which mode it ran.
        shown: Ids of the entries that a role was shown.
        faults: What broke on the way and did not end it: roles and classes of errors.
    """

    output: str = field(repr=False)
    episode: str | None
    status: Status
    lane: Lane
    decision: Decision
    tried: tuple[Tried, ...]
    reward: Reward | None = None
    ledger: Ledger = field(default_factory=Ledger)
    learning: Learning = "on"
    shown: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What the student came to, attempt by attempt."""
        return tuple(one.attempt for one in self.tried)

    @property
    def retried(self) -> bool:
        """Whether it took more than one attempt."""
        return len(self.tried) > 1


def status_of(tried: Sequence[Tried], reward: Reward | None) -> Status:
    """Return how an episode stands; see `Outcome.status`. Nothing passes in silence."""
    valid = tried[-1].validation.valid if tried else None
    if reward is not None and (reward.measured or valid is None):
        return "passed" if reward.success else "failed"
    if valid is None:
        return "unvalidated"
    return "passed" if valid else "failed"
