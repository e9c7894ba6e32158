"""What one agent asks of memory for an episode, and tells it. Synchronous: callers use a thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.experience import WINDOW, Experience, Figures
from elision.agents.atlas.lanes import Decision
from elision.agents.atlas.ledger import Spent
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.plans import TaskPlan
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.task import Facts, Task
from elision.agents.speaking import estimate
from elision.memory.learning.attribution import Effect
from elision.memory.learning.drawing import Selection, selection
from elision.memory.learning.outcomes import Ending, Past, new_id
from elision.memory.learning.packing import budget
from elision.memory.learning.playbook import FLOOR

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.entries import Audience, Entry
    from elision.memory.memory import Memory
    from elision.memory.records import Scope

_SURE: Final = NormalDist().inv_cdf(0.8)
"""A plan is handed out when its effect is above nought at this quantile."""
_PRIMED_S: Final = (3_600, 86_400, 30 * 86_400)
"""How far back a new process looks for the last episodes: the first span that holds enough."""
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Recalled:
    """What memory says before a task is begun.

    Attributes:
        episode: The id that the episode will have.
        vector: Of the task's text; None in a store without an encoder.
        past: Similar episodes with known rewards.
        student: What the student is shown.
        plan: A plan that has served on such tasks.
        plan_for_teacher: Whether it is trusted enough for a teacher's prompt.
        spent: On encoding.
    """

    episode: str
    vector: Vectors | None = field(repr=False)
    past: tuple[Past, ...]
    student: Selection
    plan: TaskPlan | None = field(repr=False)
    plan_for_teacher: bool = False
    spent: tuple[Spent, ...] = ()


class Recollection:
    """One agent's memory; lives with the agent.

    Args:
        memory: Where.
        scope: Which part of it, exactly.
        config: Mode, budgets, seeds.
        experience: Figures of the last episodes.
        count: Tokens of a text, for the model that reads the advice.
    """

    def __init__(
        self,
        memory: Memory,
        scope: Scope,
        config: AtlasConfig,
        experience: Experience,
        count: Callable[[str], int] = estimate,
    ) -> None:
        self.memory = memory
        self.scope = scope
        self._config = config
        self._experience = experience
        self._count = count

    def recall(self, task: Task, facts: Facts, tools: Collection[str]) -> Recalled:
        """Return what memory says of *task*; nothing is written.

        Args:
            task: What is asked.
            facts: What triage told.
            tools: Names of what the student may call: a plan that needs another is none.
        """
        store = self.memory.store
        if not self._experience.knows(self.scope):
            self._prime()
        begun = time.perf_counter()
        rows = store.encoded(self.scope.tenant, [task.text])
        wall_ms = (time.perf_counter() - begun) * 1e3
        episode = new_id(store.clock())
        vector = None if rows is None else rows[0]
        chosen = self._selected("student", task, facts, episode, vector)
        seed = self._seed(chosen.entries, tools)
        return Recalled(
            episode,
            vector,
            self._past(vector),
            chosen,
            None if seed is None else _listed(seed),
            seed is not None and seed.trust >= FLOOR["teacher"],
            () if store.encoder is None else (_encoding(store.encoder.name, task.text, wall_ms),),
        )

    def teach(self, task: Task, facts: Facts, recalled: Recalled) -> Selection:
        """Return what a teacher is shown; asked only where one looks on."""
        return self._selected("teacher", task, facts, recalled.episode, recalled.vector)

    def begin(
        self, task: Task, decision: Decision, recalled: Recalled, teacher: Selection | None
    ) -> None:
        """Write down that the episode begins, and what is drawn for it."""
        met = [*recalled.student.exposures, *(teacher.exposures if teacher else ())]
        self.memory.episodes.begin(
            self.scope,
            task.text,
            mode=self._config.learning,
            lane=decision.lane.value,
            decision=decision.told(),
            exposures=[replace(one, position=n) for n, one in enumerate(met)],
            subjects=task.subjects,
            trust=task.trust,
            vector=recalled.vector,
            episode=recalled.episode,
        )

    def end(
        self,
        episode: str,
        state: Ending,
        spent: Iterable[Spent],
        *,
        tried: Sequence[Tried] = (),
        adopted: Collection[str] = (),
        reward: Reward | None = None,
    ) -> None:
        """Write down what an episode spent and came to; without a reward it counts for nothing.

        The account comes first: a reward counts with the tokens that stand there.
        """
        episodes = self.memory.episodes
        episodes.spend(episode, spent)
        episodes.end(episode, state=state, retried=len(tried) > 1, adopted=adopted)
        if reward is not None:
            episodes.reward(
                self.scope.tenant,
                episode,
                reward.score,
                success=reward.success,
                by=reward.source,
            )

    def _selected(
        self,
        audience: Audience,
        task: Task,
        facts: Facts,
        episode: str,
        vector: Vectors | None,
    ) -> Selection:
        advice = self._config.advice
        room = advice.max_tokens
        if advice.n_context is not None:
            room = min(room, budget(advice.n_context))
        return selection(
            self.memory.playbook,
            self.scope,
            task.text,
            facts,
            n_tokens=room,
            mode=self._config.learning,
            seed=advice.seed,
            episode=episode,
            audience=audience,
            count=self._count,
            vector=vector,
        )

    def _past(self, vector: Vectors | None) -> tuple[Past, ...]:
        if vector is None:
            return ()
        return self.memory.episodes.neighbours(self.scope, vector, k=self._config.router.k)

    def _seed(self, shown: Sequence[Entry], tools: Collection[str]) -> Entry | None:
        """Return the best seed of a plan that is shown, known to help, and can be carried out."""
        seeds = [
            (effect.belief.mean, entry)
            for entry in shown
            if entry.purpose == "plan_seed"
            and entry.body.strip()
            and (entry.handle is None or entry.handle in tools)
            and (effect := self.memory.playbook.effect(self.scope.tenant, entry.id)) is not None
            and _helps(effect)
        ]
        best = max(seeds, key=lambda seed: (seed[0], seed[1].id), default=None)
        return None if best is None else best[1]

    def _prime(self) -> None:
        """Read the figures of the last episodes, so that a new process knows them."""
        last: list[Figures] = []
        for seconds in _PRIMED_S:
            last = self._since(self.memory.store.clock() - seconds)
            if len(last) == WINDOW:
                break
        self._experience.prime(self.scope, last)

    def _since(self, moment: float) -> list[Figures]:
        """Return the figures of the last `WINDOW` episodes that began after *moment*."""
        last: deque[Figures] = deque(maxlen=WINDOW)
        after = new_id(max(0.0, moment))
        while page := self.memory.episodes.list(self.scope, after=after, limit=_PAGE):
            ended = (one for one in page if one.state not in {"running", "aborted"})
            last.extend(Figures(one.lane, one.tokens, one.cost) for one in ended)
            after = page[-1].id
        return list(last)


def adopted(shown: Iterable[Entry], tried: Iterable[Tried]) -> tuple[str, ...]:
    """Return the ids of the shown entries that an action followed, in any attempt.

    Their cues fired on the task before the first action, or they had not been shown; what an entry
    without a tool says cannot be seen in actions.
    """
    actions = [action for one in tried for action in one.attempt.actions]
    return tuple(
        entry.id
        for entry in shown
        if any(entry.is_followed_by(action.tool, action.args) for action in actions)
    )


def _listed(seed: Entry) -> TaskPlan:
    return TaskPlan.listed([line for line in seed.body.splitlines() if line.strip()])


def _helps(effect: Effect) -> bool:
    return effect.belief.mean > _SURE * sqrt(effect.belief.variance)


def _encoding(model: str, text: str, wall_ms: float) -> Spent:
    tokens = estimate(text)
    return Spent(role="embedder", model=model, tokens_in=tokens, wall_ms=wall_ms, estimated=True)
