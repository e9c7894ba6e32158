"""Entries whose true effect is known, measured by the real loop: what it says of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import AdviceConfig, AtlasConfig
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.task import Task
from elision.evaluation.atlas.simworld import Planted, SimWorld
from elision.evaluation.atlas.world import ScriptedStudent
from elision.memory.learning.states import Action, State
from elision.memory.memory import Memory
from elision.memory.records import Scope, Trust

_SCOPE: Final = Scope("bench", ("simworld",))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the loop found of a planted entry, beside the truth.

    Attributes:
        entry: It.
        state: Where it stood at the end.
        estimate: Contrast of the rewards, applied less withheld; None while an arm was empty.
        truth: The true effect on the tasks that it is for.
        fired: Success where its cue fired less success elsewhere: what a comparison of tasks
            says, which withholds nothing.
        n: Episodes that it was eligible in.
    """

    entry: Planted
    state: State
    estimate: float | None
    truth: float
    fired: float
    n: int


async def measure(world: SimWorld, home: Path, *, seed: int) -> tuple[Measured, ...]:
    """Return what is found of each of the world's entries after all its tasks, over one memory.

    Args:
        world: Its entries are planted, provisional.
        home: An empty folder for the memory.
        seed: Of order and luck. What is withheld also follows the ids of episodes, which are new
            in each run.
    """
    config = AtlasConfig(forced_lane=Lane.AUTO, success_from=1.0, advice=AdviceConfig(seed=seed))
    with Memory.open(home, snapshots=False) as memory:
        ids = [_plant(memory, entry) for entry in world.entries]
        student = ScriptedStudent(world, by_luck=0.0, seed=seed)
        atlas = Atlas(student, memory, checker=world.grade, scope=_SCOPE, config=config)
        rewards: dict[str, float] = {}
        order = world.order(seed)
        for task in order:
            outcome = await atlas.run(task)
            assert outcome.reward is not None, "the world grades every task"
            assert task.id is not None, "tasks of a world have ids"
            rewards[task.id] = outcome.reward.score
        await atlas.aclose()
        return tuple(
            _measured(world, memory, entry, id_, rewards, order)
            for entry, id_ in zip(world.entries, ids, strict=True)
        )


def _plant(memory: Memory, entry: Planted) -> str:
    added = memory.playbook.add(_SCOPE, entry.draft, actor="bench", trust=Trust.OPERATOR)
    memory.playbook.act(_SCOPE.tenant, added.id, Action.ADMIT, actor="bench")
    return added.id


def _measured(
    world: SimWorld,
    memory: Memory,
    entry: Planted,
    id_: str,
    rewards: dict[str, float],
    order: Sequence[Task],
) -> Measured:
    effect = memory.playbook.effect(_SCOPE.tenant, id_)
    by_fired: dict[bool, list[float]] = {True: [], False: []}
    for task in order:
        by_fired[entry.tag in task.tags].append(rewards[str(task.id)])
    return Measured(
        entry=entry,
        state=memory.playbook.get(_SCOPE.tenant, id_).state,
        estimate=None if effect is None else effect.reward.delta,
        truth=world.effect(entry, propensity=memory.playbook.policy.provisional),
        fired=fmean(by_fired[True]) - fmean(by_fired[False]),
        n=len(by_fired[True]),
    )
