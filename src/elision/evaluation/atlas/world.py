"""A world with tasks, and who acts in it: a scripted student, and a teacher who knows it all.

They measure the orchestration: matching, packing, withholding, evidence, lanes, accounts. They say
nothing of the quality of any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from elision.agents.atlas.ledger import Spent
from elision.agents.atlas.plans import TaskPlan
from elision.agents.atlas.student import Attempt, Brief
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import Review, Validation
from elision.agents.atlas.tools import Action
from elision.evaluation.atlas.skills import Skill, known, n_tokens

TOKENS_OUT: Final = 60
"""Tokens that a student writes for one action: thought, tool and arguments."""
VERDICT_TOKENS: Final = 40
"""Tokens that a teacher writes beside its guidance."""


@dataclass(frozen=True, slots=True)
class Move:
    """One action in a world and what was seen.

    Attributes:
        tool: What was called.
        args: With what.
        seen: The observation.
        ok: Whether it was no error.
    """

    tool: str
    args: Mapping[str, Any] = field(repr=False)
    seen: str = field(repr=False)
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Play:
    """One attempt at a task.

    Attributes:
        output: What was answered.
        moves: What was done.
    """

    output: str = field(repr=False)
    moves: tuple[Move, ...] = field(repr=False)


class World(Protocol):
    """Tasks, what it takes to do them, and who can tell whether they were done."""

    @property
    def name(self) -> str:
        """In reports."""
        ...

    @property
    def skills(self) -> tuple[Skill, ...]:
        """All that can be learned in it."""
        ...

    @property
    def held_out(self) -> Sequence[Task]:
        """Tasks that nobody trains on; each has an ``id``."""
        ...

    def order(self, seed: int) -> Sequence[Task]:
        """Return the tasks to learn on, in the order of *seed*; each has an ``id``."""
        ...

    def play(self, task: Task, skills: frozenset[str], seed: str) -> Play:
        """Attempt *task* with *skills*; the same arguments give the same play."""
        ...

    def needs(self, task: Task) -> tuple[Skill, ...]:
        """Return the skills that *task* takes, in the order in which a teacher misses them."""
        ...

    def grade(self, task: Task, attempt: Attempt) -> float:
        """Return the reward, 0 to 1, from what was answered and done; 1: wholly right."""
        ...


class ScriptedStudent:
    """Acts in a world with the skills that it reads of, and with those it has by luck.

    Args:
        world: Where it acts.
        by_luck: Probability of a skill that nobody told it of; the same in every arm.
        seed: Of the luck and of what it does at random.
    """

    def __init__(self, world: World, *, by_luck: float, seed: int) -> None:
        self.name = "scripted-student"
        self._world = world
        self._by_luck = by_luck
        self._seed = seed

    async def attempt(self, task: Task, brief: Brief) -> Attempt:
        """See `elision.agents.atlas.student.Student.attempt`."""
        seed = f"{self._seed}:{task.id}"
        told = tuple(_told(brief))
        skills = known(self._world.skills, told, by_luck=self._by_luck, seed=seed)
        play = self._world.play(task, skills, seed)
        return attempt_of(play, self._spent(n_tokens(task.text, *told), play))

    def _spent(self, prompt: int, play: Play) -> Spent:
        """Return its account: the prompt is read for each action, an observation once."""
        n = max(1, len(play.moves))
        seen = sum(n_tokens(move.seen) for move in play.moves)
        return Spent(
            role="student", model=self.name, calls=n, tokens_in=n * prompt + seen,
            tokens_out=n * TOKENS_OUT,
        )  # fmt: skip


class Oracle:
    """A teacher that knows whether an attempt is right, and which missing skill would help most.

    It reads the task and everything that the student saw, and that costs what it costs.
    """

    def __init__(self, world: World) -> None:
        self.name = "oracle"
        self._world = world

    async def validate(self, task: Task, attempt: Attempt, brief: Brief) -> Validation:
        """Say whether *attempt* is wholly right; if not, tell of the next missing skill."""
        valid = self._world.grade(task, attempt) == 1
        lacking = None if valid else self._lacking(task, brief)
        told = lacking.instruction if lacking else ""
        seen = (action.observation for action in attempt.actions)
        return Validation(valid, told, (self._spent(n_tokens(task.text, *seen), told),))

    async def review(self, task: Task, plan: TaskPlan, brief: Brief) -> Review:
        """Put the next missing skill before whatever was planned."""
        lacking = self._lacking(task, brief)
        steps = (*(() if lacking is None else (lacking.instruction,)), *plan.told)
        spent = self._spent(n_tokens(task.text, *plan.told), *steps)
        return Review(TaskPlan.listed(steps), spent=(spent,))

    def _lacking(self, task: Task, brief: Brief) -> Skill | None:
        """Return the untold skill that would help most with *task* now; of equals the first."""
        needed, told = self._world.needs(task), tuple(_told(brief))
        held = known(needed, told)

        def gained(skill: Skill) -> float:
            play = self._world.play(task, held | {skill.name}, f"oracle:{task.id}")
            return self._world.grade(task, attempt_of(play))

        return max((s for s in needed if s.name not in held), key=gained, default=None)

    def _spent(self, read: int, *told: str) -> Spent:
        return Spent(
            role="teacher", model=self.name, tokens_in=read,
            tokens_out=VERDICT_TOKENS + n_tokens(*told),
        )  # fmt: skip


def attempt_of(play: Play, *spent: Spent) -> Attempt:
    """Return *play* as what a student came to."""
    actions = tuple(
        Action(n, move.tool, move.args, move.ok, move.seen) for n, move in enumerate(play.moves, 1)
    )
    return Attempt(play.output, actions, spent)


def _told(brief: Brief) -> Iterator[str]:
    """Yield all that a brief says beside the task."""
    yield from (brief.advice, *brief.guidance, *(brief.plan or ()))
    if brief.step is not None:
        yield brief.step
