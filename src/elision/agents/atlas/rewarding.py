"""What an episode was worth: by the truth where it is known, by judges where they are asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.judge import Judge
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.purse import Purse
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task

Checker: TypeAlias = Callable[[Task, Attempt], "float | Awaitable[float | None] | None"]
"""Compares an attempt with the truth: 0 to 1, or None where there is none."""


class Rewarder:
    """Rewards episodes; lives with the agent.

    Args:
        checker: Asked first: its word is compared with the truth.
        judge: Asked where the checker has none.
        config: From where on a reward is a success; how long a judge may take.
    """

    def __init__(self, checker: Checker | None, judge: Judge | None, config: AtlasConfig) -> None:
        self._checker = checker
        self._judge = judge
        self._config = config

    async def reward(self, task: Task, tried: Sequence[Tried], purse: Purse) -> Reward | None:
        """Return what the last attempt is worth; None, which is not 0, if nobody can say."""
        if not tried:
            return None
        found = await self._checked(task, tried[-1].attempt, purse)
        return found or await self._judged(task, tried, purse)

    async def _checked(self, task: Task, attempt: Attempt, purse: Purse) -> Reward | None:
        if self._checker is None:
            return None
        score, _ = await purse.spared("checker", _ask(self._checker, task, attempt), None)
        if score is None:
            return None
        if not 0 <= score <= 1:
            purse.faults.append("checker:range")
            return None
        done = score >= self._config.success_from
        return Reward(score=float(score), success=done, source="checker")

    async def _judged(self, task: Task, tried: Sequence[Tried], purse: Purse) -> Reward | None:
        if self._judge is None or not purse.left.open:
            return None
        turn = self._judge.score(
            task,
            [one.attempt for one in tried],
            truth=task.truth,
            lane=tried[-1].lane.value,
            plan=tried[-1].plan or (),
            guidance=[one.validation.guidance for one in tried if one.validation.guidance],
            allowance=purse.left,
            spend=purse.rows.append,
        )
        reward, _ = await purse.spared("judge", turn, self._config.judge.timeout_s)
        return reward


async def _ask(checker: Checker, task: Task, attempt: Attempt) -> float | None:
    said = checker(task, attempt)
    return await said if inspect.isawaitable(said) else said
