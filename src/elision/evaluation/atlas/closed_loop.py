"""The closed loop: the same tasks in the same order, with memory and in every way without.

Only the student and the teacher are scripted. Matching, packing, withholding, evidence, moves,
lanes and accounts are those of `elision.agents.atlas` over a memory in SQLite. What is measured is
the orchestration, never the quality of a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import AtlasConfig, Learning
from elision.agents.atlas.distil_rules import RuleDistiller
from elision.agents.atlas.outcome import Outcome
from elision.agents.atlas.report import Report, Row, report
from elision.agents.atlas.task import Task
from elision.errors import ConfigError
from elision.evaluation.atlas.skills import Skill
from elision.evaluation.atlas.world import Oracle, ScriptedStudent, World
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.states import SHOWN, Action, State
from elision.memory.memory import Memory
from elision.memory.records import Scope, Trust

ArmName: TypeAlias = Literal["on", "off", "shadow", "shuffled", "frozen", "fresh"]
"""``on``: it learns. ``off``: no memory, the control. ``shadow``: it matches and notes, and shows
nothing. ``shuffled``: entries with the learned cues and another domain's words, frozen. On tasks
held out, ``frozen``: what was learned, shown and not changed; ``fresh``: no memory, the control."""
Runs: TypeAlias = Mapping[ArmName, tuple[tuple["Lived", ...], ...]]
"""Episodes of each arm, seed by seed."""

BY_LUCK: Final = 0.1
"""Probability that the student has a skill that nobody told it of."""
NOTE: Final = (
    "Scripted student and teacher on {world}: this measures the orchestration, not any model."
)
_SCOPE: Final = Scope("bench", ("atlas",))


@dataclass(frozen=True, slots=True)
class Lived:
    """One episode of an arm.

    Attributes:
        row: Its figures, for `elision.agents.atlas.report`.
        task: The task's id.
        lane: In which it began.
        n_attempts: Attempts.
        n_shown: Entries that a role was shown.
    """

    row: Row
    task: str
    lane: str
    n_attempts: int
    n_shown: int


@dataclass(frozen=True, slots=True)
class Result:
    """A world's arms.

    Attributes:
        world: Its name.
        runs: See `Runs`.
        learned: Entries that stood at the end of each ``on`` run, by state.
    """

    world: str
    runs: Runs
    learned: tuple[Mapping[str, int], ...] = field(default=())

    def against(self, arm: ArmName, control: ArmName) -> Report:
        """Return what *arm* changes against *control*."""
        told = NOTE.format(world=self.world)
        ours, theirs = self._rows(arm), self._rows(control)
        return report(ours, theirs, note=f"{told} {arm} against {control}.")

    def _rows(self, arm: ArmName) -> list[list[Row]]:
        return [[lived.row for lived in run] for run in self.runs[arm]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """How the arms are run.

    Attributes:
        config: Of every arm, but for what the arm is about.
        by_luck: See `BY_LUCK`.
        strangers: Another domain's skills, for the arm ``shuffled``.
        n_most: Most tasks of a run; None: all.
    """

    config: AtlasConfig = field(
        default_factory=lambda: AtlasConfig(success_from=1.0, learning="on")
    )
    by_luck: float = BY_LUCK
    strangers: tuple[Skill, ...] = ()
    n_most: int | None = None

    async def run(
        self,
        world: World,
        home: Path,
        *,
        seeds: Sequence[int],
        told: Callable[[str], None] = lambda _: None,
    ) -> Result:
        """Run all arms of *world* under each of *seeds*.

        Args:
            world: The tasks.
            home: An empty folder for the memories.
            seeds: Of order, luck and withholding.
            told: Is told of each arm that is done.

        Raises:
            ConfigError: If there are no seeds.
        """
        if not seeds:
            raise ConfigError("a closed loop takes at least one seed")
        runs: dict[ArmName, list[tuple[Lived, ...]]] = {}
        learned: list[Mapping[str, int]] = []
        for seed in seeds:
            place = home / f"{world.name}-{seed}"
            for arm, lived, stands in await self._seed(world, place, seed):
                runs.setdefault(arm, []).append(lived)
                learned += [stands] if stands is not None else []
                told(f"{world.name}, seed {seed}, {arm}: {len(lived)} episodes")
        return Result(world.name, {arm: tuple(one) for arm, one in runs.items()}, tuple(learned))

    async def _seed(
        self, world: World, place: Path, seed: int
    ) -> list[tuple[ArmName, tuple[Lived, ...], Mapping[str, int] | None]]:
        order, held = world.order(seed)[: self.n_most], world.held_out[: self.n_most]
        with _memory(place / "on") as memory:
            on = await self.live(world, order, memory, "on", seed)
            entries = memory.playbook.entries(_SCOPE, states=SHOWN)
            stands = _counted(memory.playbook.entries(_SCOPE, states=tuple(State)))
            frozen = await self.live(world, held, memory, "frozen", seed)
        with _memory(place / "shadow") as memory:
            _plant(memory, entries, None)
            shadow = await self.live(world, order, memory, "shadow", seed)
        with _memory(place / "shuffled") as memory:
            _plant(memory, entries, self.strangers)
            shuffled = await self.live(world, order, memory, "frozen", seed)
        with _memory(place / "off") as memory:
            off = await self.live(world, order, memory, "off", seed)
            fresh = await self.live(world, held, memory, "off", seed)
        return [
            ("on", on, stands), ("off", off, None), ("shadow", shadow, None),
            ("shuffled", shuffled, None), ("frozen", frozen, None), ("fresh", fresh, None),
        ]  # fmt: skip

    async def live(
        self, world: World, tasks: Sequence[Task], memory: Memory, learning: Learning, seed: int
    ) -> tuple[Lived, ...]:
        """Return the episodes of *tasks*, one after the other over one *memory*."""
        lived = []
        config = self.config.model_copy(
            update={
                "learning": learning,
                "advice": self.config.advice.model_copy(update={"seed": seed}),
            }
        )
        atlas = Atlas(
            ScriptedStudent(world, by_luck=self.by_luck, seed=seed),
            memory,
            teacher=Oracle(world),
            checker=world.grade,
            distiller=RuleDistiller(),
            scope=_SCOPE,
            config=config,
        )
        try:
            for n, task in enumerate(tasks, 1):
                outcome = await atlas.run(task)
                await atlas.settled()
                lived.append(_lived(n, task, outcome))
        finally:
            await atlas.aclose()
        return tuple(lived)


def _memory(home: Path) -> Memory:
    home.mkdir(parents=True)
    return Memory.open(home, snapshots=False)


def _plant(memory: Memory, entries: Sequence[Entry], strangers: Sequence[Skill] | None) -> None:
    """Put *entries* into *memory*, provisional; with the words of *strangers*, if there are any."""
    for n, entry in enumerate(entries):
        words = strangers[n % len(strangers)].instruction if strangers else entry.imperative
        draft = EntryDraft(imperative=words, cue=entry.cue)
        added = memory.playbook.add(_SCOPE, draft, actor="bench", trust=Trust.OPERATOR)
        if added.state is State.CANDIDATE:
            memory.playbook.act(_SCOPE.tenant, added.id, Action.ADMIT, actor="bench")


def _counted(entries: Sequence[Entry]) -> Mapping[str, int]:
    return Counter(str(entry.state) for entry in entries)


def _lived(n: int, task: Task, outcome: Outcome) -> Lived:
    assert task.id is not None, "tasks of a world have ids"
    reward = outcome.reward
    row = Row(
        n=n,
        success=None if reward is None else reward.success,
        reward=None if reward is None else reward.score,
        tokens_student=outcome.ledger.student.tokens,
        tokens_total=outcome.ledger.total.tokens,
        cost=outcome.ledger.total.cost,
    )
    return Lived(row, task.id, outcome.lane.value, len(outcome.tried), len(outcome.shown))
