r"""A made-up world in which the true effect of every entry is known.

A task belongs to topics and is easy or hard. A student succeeds with probability
:math:`\sigma(\theta + \sum_k g_k - d)`: its ability, the gains of the skills it has that the
task calls for, and the difficulty. Skills that help also save tokens. There are entries that help,
that do nothing, that harm, and one that does nothing but fires on the easy tasks only: a comparison
of tasks on which it fired with all others would praise it.

Source:
    atlas_memory.md 3.4; the logistic model is that of item response theory (Rasch 1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import exp
from statistics import fmean
from typing import Final

from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task
from elision.evaluation.atlas.skills import Skill, chance
from elision.evaluation.atlas.world import Move, Play
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import EntryDraft

EASY: Final = "easy"
"""The tag of the easy tasks: the confounder."""


@dataclass(frozen=True, slots=True)
class Planted:
    """An entry whose truth is known.

    Attributes:
        skill: What it teaches.
        tag: Of the tasks that it is for.
        gain: Added to the log-odds of success where it is read.
        kind: ``helps``, ``nothing``, ``harms`` or ``confounded``.
    """

    skill: Skill
    tag: str
    gain: float
    kind: str

    @property
    def draft(self) -> EntryDraft:
        """What a playbook keeps of it."""
        cue = Cue(type="predicate", pattern=self.tag)
        return EntryDraft(cue=cue, imperative=self.skill.instruction)


def _planted(n: int, kind: str, gain: float) -> Planted:
    tag = EASY if kind == "confounded" else f"topic_{n}"
    words = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")
    told = f"In matters of {words[n]} proceed by the {words[n]} rule number {n}."
    return Planted(Skill(f"{kind}-{n}", told), tag, gain, kind)


ENTRIES: Final = (
    _planted(0, "helps", 1.6),
    _planted(1, "helps", 0.9),
    _planted(2, "nothing", 0.0),
    _planted(3, "harms", -1.6),
    _planted(4, "confounded", 0.0),
)


class SimWorld:
    r"""Seeded tasks; every task is tagged with its topics, and whether it is easy.

    Args:
        n_tasks: Tasks to train on; as many again are held out, at most 100.
        seed: Of the tasks.
        entries: What can be read.
        ability: :math:`\theta`.
        difficulty: Of hard tasks; easy ones have its negative.
        share: Probability that a task belongs to a topic.
    """

    def __init__(
        self,
        n_tasks: int,
        *,
        seed: int = 0,
        entries: Sequence[Planted] = ENTRIES,
        ability: float = -0.3,
        difficulty: float = 0.9,
        share: float = 0.5,
    ) -> None:
        self.name = "simworld"
        self.entries = tuple(entries)
        self.skills = tuple(entry.skill for entry in entries)
        self._ability = ability
        self._difficulty = difficulty
        self._share = share
        self.trained = tuple(self._task(f"{seed}-{n}") for n in range(n_tasks))
        self.held_out = tuple(self._task(f"{seed}-held-{n}") for n in range(min(100, n_tasks)))

    def _task(self, name: str) -> Task:
        topics = [one.tag for one in self.entries if one.tag != EASY]
        tags = {tag for tag in topics if chance(name, tag) < self._share}
        if chance(name, EASY) < 0.5:
            tags.add(EASY)
        told = ", ".join(sorted(tags)) or "nothing in particular"
        return Task(f"Task {name} about {told}.", tags=frozenset(tags), id=name)

    def order(self, seed: int) -> Sequence[Task]:
        """See `World.order`."""
        return sorted(self.trained, key=lambda task: chance(str(seed), str(task.id)))

    def play(self, task: Task, skills: frozenset[str], seed: str) -> Play:
        """See `World.play`: right or wrong by chance, in fewer actions with skills that help."""
        right = chance(seed, "right") < self.p_success(task, skills)
        helped = sum(one.gain > 0 and one.skill.name in skills for one in self.for_(task))
        moves = (Move("work", {}, "something was seen " * 10),) * max(1, 4 - helped)
        return Play(f"right {task.id}" if right else "wrong", moves)

    def p_success(self, task: Task, skills: frozenset[str]) -> float:
        """Return the probability of success of a student with *skills*."""
        hard = -1 if EASY in task.tags else 1
        gains = sum(one.gain for one in self.for_(task) if one.skill.name in skills)
        return 1 / (1 + exp(-(self._ability + gains - hard * self._difficulty)))

    def for_(self, task: Task) -> tuple[Planted, ...]:
        """Return the entries that are for *task*."""
        return tuple(one for one in self.entries if one.tag in task.tags)

    def needs(self, task: Task) -> tuple[Skill, ...]:
        """Return the skills of *task* that help."""
        return tuple(one.skill for one in self.for_(task) if one.gain > 0)

    def grade(self, task: Task, attempt: Attempt) -> float:
        """Return 1 for the right answer."""
        return float(attempt.output == f"right {task.id}")

    def effect(self, entry: Planted, *, propensity: float) -> float:
        """Return the true effect of *entry* on the success of the tasks that it is for.

        Args:
            entry: One of this world's.
            propensity: With which the other entries are shown, independently.
        """
        concerned = [task for task in self.trained if entry.tag in task.tags]
        return fmean(self._effect(task, entry, propensity) for task in concerned)

    def _effect(self, task: Task, entry: Planted, propensity: float) -> float:
        others = [one.skill.name for one in self.for_(task) if one is not entry]
        total = 0.0
        for shown in product((True, False), repeat=len(others)):
            held = frozenset(name for name, on in zip(others, shown, strict=True) if on)
            n_on = sum(shown)
            weight = propensity**n_on * (1 - propensity) ** (len(others) - n_on)
            with_it = self.p_success(task, held | {entry.skill.name})
            total += weight * (with_it - self.p_success(task, held))
        return total

    def bias(self, entry: Planted, *, propensity: float) -> float:
        """Return what "fired against did not fire" would say of *entry*, in expectation.

        That is the estimator of Arc-Computer/atlas-sdk: it compares other tasks, not other arms.
        """

        def rate(tasks: Sequence[Task]) -> float:
            return fmean(self._expected(task, propensity) for task in tasks)

        fired = [task for task in self.trained if entry.tag in task.tags]
        return rate(fired) - rate([task for task in self.trained if entry.tag not in task.tags])

    def _expected(self, task: Task, propensity: float) -> float:
        names = [one.skill.name for one in self.for_(task)]
        total = 0.0
        for shown in product((True, False), repeat=len(names)):
            n_on = sum(shown)
            weight = propensity**n_on * (1 - propensity) ** (len(names) - n_on)
            held = frozenset(name for name, on in zip(names, shown, strict=True) if on)
            total += weight * self.p_success(task, held)
        return total
