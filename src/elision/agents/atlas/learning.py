"""What becomes of an episode's lessons: distilled, gated, kept. Runs behind the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.digest import Digest, Shown, digest
from elision.agents.atlas.distil import EVERY, Deltas, Distiller, is_efficient, why_distil
from elision.agents.atlas.experience import Experience
from elision.agents.atlas.gates import RECENT, GateContext, Passed, Refused, Ruling, Seen, gate
from elision.agents.atlas.ledger import Allowance, Totals, priced
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.remembering import Recalled, Recollection
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.task import Facts, Task, Triage
from elision.errors import RequestError
from elision.memory.learning.entries import EntryDraft
from elision.memory.learning.states import State
from elision.memory.records import Trust

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors

ACTOR: Final = "distiller"
DRIFTED: Final = "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """An episode that ended, as those who learn from it need it.

    Attributes:
        task: What was asked.
        facts: What triage told.
        recalled: What memory had said.
        tried: All attempts.
        adopted: Ids of the entries that were followed.
        reward: None if unknown.
        spent: Over all roles.
        n_episode: Which of its scope it is, from 1.
        median_tokens: Of the scope's episodes before it; None if there were none.
    """

    task: Task = field(repr=False)
    facts: Facts = field(repr=False)
    recalled: Recalled = field(repr=False)
    tried: tuple[Tried, ...] = field(repr=False)
    adopted: tuple[str, ...]
    reward: Reward | None
    spent: Totals
    n_episode: int
    median_tokens: float | None

    @property
    def guidance(self) -> tuple[str, ...]:
        """What the teacher said, attempt by attempt."""
        return tuple(one.validation.guidance for one in self.tried if one.validation.guidance)

    @property
    def trust(self) -> Trust:
        """The least of whoever asked, of what tools said, and of what was shown."""
        said = (action.trust for one in self.tried for action in one.attempt.actions)
        shown = (entry.trust for entry in self.recalled.student.entries)
        return min((self.task.trust, *said, *shown))


class Learner:
    """Turns lessons into candidates; one entry that fails a gate costs no other.

    Args:
        recollection: Where they are kept.
        distiller: Finds them.
        config: How much may be spent.
        experience: What is usual in the scope.
        triage: Tells the facts of earlier tasks.
        tools: Names of what the student may call.
    """

    def __init__(
        self,
        recollection: Recollection,
        distiller: Distiller,
        config: AtlasConfig,
        experience: Experience,
        triage: Triage,
        tools: Collection[str],
    ) -> None:
        self._recollection = recollection
        self._distiller = distiller
        self._config = config
        self._experience = experience
        self._triage = triage
        self._tools = tuple(tools)

    async def learn(self, lesson: Lesson) -> None:
        """Learn from an episode, if there is reason and budget to."""
        scope, spent = self._recollection.scope, lesson.spent
        drifted = self._drifted(lesson.reward)
        if lesson.n_episode % EVERY == 0:
            await asyncio.to_thread(self._recollection.memory.playbook.rest, scope)
        score = None if lesson.reward is None else lesson.reward.score
        why = why_distil(
            guided=bool(lesson.guidance),
            retried=len(lesson.tried) > 1,
            reward=score,
            tokens=spent.tokens,
            median_tokens=lesson.median_tokens,
            n_episode=lesson.n_episode,
        )
        if why is None or not self._experience.quota.allows(scope):
            self._experience.counts["passed_over" if why is None else "over_quota"] += 1
            return
        self._experience.counts[f"why_{why.value}"] += 1
        efficient = is_efficient(score, spent.tokens, lesson.median_tokens)
        read = await asyncio.to_thread(self._digest, lesson, efficient)
        await self._distil(lesson, read, drifted)

    async def _distil(self, lesson: Lesson, read: Digest, drifted: bool) -> None:
        scope = self._recollection.scope
        allowance = Allowance(tokens=self._experience.quota.left(scope), prices=self._config.prices)
        async with asyncio.timeout(self._config.distiller.timeout_s):
            deltas = await self._distiller.distil(read, allowance=allowance)
        rows = priced(deltas.spent, self._config.prices)
        self._experience.quota.spend(scope, Totals.of(rows).tokens)
        self._experience.counts["malformed"] += deltas.n_malformed
        for flag in deltas.flags:
            self._experience.counts[f"flag_{flag.verdict}"] += 1
        if rows:
            episodes = self._recollection.memory.episodes
            await asyncio.to_thread(episodes.spend, lesson.recalled.episode, rows)
        await asyncio.to_thread(self._keep, lesson, read, deltas, drifted)

    def _drifted(self, reward: Reward | None) -> bool:
        """Return whether a reward is too far from the last ones of its judge."""
        if reward is None:
            return False
        alarms = self._experience.drift.observe(
            self._recollection.scope,
            reward.model or reward.source,
            score=reward.score,
            uncertainty=reward.uncertainty,
        )
        self._experience.counts["drift_alarm"] += len(alarms)
        return bool(alarms)

    def _digest(self, lesson: Lesson, efficient: bool) -> Digest:
        task, last = lesson.task, lesson.tried[-1]
        return digest(
            task,
            [one.attempt for one in lesson.tried],
            lane=last.lane.value,
            plan=last.plan or (),
            guidance=lesson.guidance,
            truth=task.truth,
            reward=lesson.reward,
            shown=[
                Shown(entry.id, entry.line, True, entry.id in lesson.adopted)
                for entry in lesson.recalled.student.entries
            ],
            tools=self._tools,
            facts=lesson.facts,
            recent=self._recent(),
            efficient=efficient,
        )

    def _recent(self) -> tuple[Seen, ...]:
        recollection = self._recollection
        texts = recollection.memory.episodes.tasks(recollection.scope, RECENT)
        return tuple(Seen(text, self._triage(Task(text))) for text in reversed(texts))

    def _keep(self, lesson: Lesson, read: Digest, deltas: Deltas, drifted: bool) -> None:
        for draft in deltas.add:
            vector = self._vector(draft)
            ruling = gate(draft, self._context(lesson, read), vector)
            if isinstance(ruling, Refused):
                self._experience.counts.update(f"refused_{one.value}" for one in ruling.reasons)
                continue
            try:
                self._add(draft, lesson, ruling, drifted)
            except RequestError as error:
                # Its task was erased in the meantime, or a forget target names it.
                self._experience.counts[f"refused_{error.code}"] += 1

    def _add(self, draft: EntryDraft, lesson: Lesson, ruling: Ruling, drifted: bool) -> None:
        recollection, tenant = self._recollection, self._recollection.scope.tenant
        clean = isinstance(ruling, Passed) and not drifted
        entry = recollection.memory.playbook.add(
            recollection.scope,
            draft,
            actor=ACTOR,
            parents=(lesson.recalled.episode, *_ids(lesson)),
            trust=lesson.trust,
            subjects=lesson.task.subjects,
            quarantine="" if clean else _code(ruling),
        )
        if entry.state is State.CANDIDATE:
            entry = recollection.memory.playbook.admit(tenant, entry.id, actor=ACTOR)
        self._experience.counts[f"kept_{entry.state.value}"] += 1

    def _context(self, lesson: Lesson, read: Digest) -> GateContext:
        recollection, task = self._recollection, lesson.task
        return GateContext(
            tenant=recollection.scope.tenant,
            task=task.text,
            origin=Seen(task.text, lesson.facts, lesson.recalled.vector),
            recent=read.recent,
            tools=self._tools,
            answers=() if task.truth is None else (task.truth,),
            existing=recollection.memory.playbook.entries(recollection.scope, states=tuple(State)),
            domain_facts=self._config.distiller.domain_facts,
            screen=recollection.memory.store.screen,
        )

    def _vector(self, draft: EntryDraft) -> Vectors | None:
        recollection = self._recollection
        rows = recollection.memory.store.encoded(recollection.scope.tenant, [draft.text])
        return None if rows is None else rows[0]


def _ids(lesson: Lesson) -> tuple[str, ...]:
    return tuple(entry.id for entry in lesson.recalled.student.entries)


def _code(ruling: Ruling) -> str:
    """Return why an entry is quarantined, as a code: what the scan found first, or drift."""
    codes = getattr(ruling, "codes", ())
    return str(codes[0]) if codes else DRIFTED
