"""ATLAS: an agent supervised as closely as its past asks for, that learns from what it does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elision.agents.atlas.choosing import Chooser
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.experience import Experience, Figures
from elision.agents.atlas.judge import Judge
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.learning import Learner, Lesson
from elision.agents.atlas.ledger import Allowance, Ledger, priced
from elision.agents.atlas.outcome import Outcome, Tried, status_of
from elision.agents.atlas.purse import Purse
from elision.agents.atlas.recording import Begun, Recorder
from elision.agents.atlas.remembering import Recalled, Recollection, adopted
from elision.agents.atlas.reward import Reward, Source
from elision.agents.atlas.rewarding import Checker, Rewarder
from elision.agents.atlas.roles import roles
from elision.agents.atlas.student import Student
from elision.agents.atlas.supervising import Supervision
from elision.agents.atlas.task import Facts, Task, Triage, triage
from elision.agents.atlas.teacher import Teacher
from elision.agents.speaking import Speaker, estimate
from elision.contract import Engine
from elision.errors import ConfigError
from elision.memory.records import Scope

if TYPE_CHECKING:
    from elision.agents.atlas.distil import Distiller
    from elision.memory.memory import Memory

DEFAULT_SCOPE: Final = Scope("default", ("atlas",))
_log = logging.getLogger(__name__)


class Atlas:
    """An agent over a student, a teacher and a memory.

    Args:
        student: Does the work; of an engine or a speaker a `SpeakerStudent` is made, and a
            `SpeakerTeacher` too unless a teacher is given.
        memory: What it learned; None only where learning is ``off``.
        teacher: Looks on; without one every attempt stays unvalidated.
        judge: Scores what cannot be checked.
        distiller: Finds what is to be learned; without one nothing is, beyond which lane to take.
        checker: Compares with the truth; its word counts more than any other.
        probe: Guesses the lane of tasks; asked for every task.
        scope: Whose memory, and which part of it.
        config: See `AtlasConfig`.
        experience: Shared by agents that live for one request only; None: one of its own.
        triage: Tells the facts of tasks.
        tools: Names of what the student calls; None: those of the student, if it says so.
        count: Tokens of a text, for the model that reads the advice.

    Raises:
        ConfigError: If there is no memory and learning is not ``off``.
    """

    def __init__(
        self,
        student: Student | Engine | Speaker,
        memory: Memory | None,
        *,
        teacher: Teacher | None = None,
        judge: Judge | None = None,
        distiller: Distiller | None = None,
        checker: Checker | None = None,
        probe: Speaker | None = None,
        scope: Scope = DEFAULT_SCOPE,
        config: AtlasConfig | None = None,
        experience: Experience | None = None,
        triage: Triage = triage,
        tools: Collection[str] | None = None,
        count: Callable[[str], int] = estimate,
    ) -> None:
        self.config = config or AtlasConfig()
        if memory is None and self.config.learning != "off":
            raise ConfigError("an agent without memory learns nothing; set learning to 'off'")
        self.scope = scope
        self.experience = experience or Experience(self.config.distiller.daily_tokens)
        self._student, self._teacher = roles(student, teacher, self.config, scope.tenant)
        self._triage = triage
        self._rewarder = Rewarder(checker, judge, self.config)
        self._chooser = Chooser(self.config, scope, self.experience, probe)
        named = tools if tools is not None else getattr(self._student, "tools", ())
        self._tools = tuple(named)
        self._learner: Learner | None = None
        self._behind: set[asyncio.Task[None]] = set()
        kept = None
        if memory is not None and self.config.learning != "off":
            kept = Recollection(memory, scope, self.config, self.experience, count)
            if distiller is not None and self.config.learning == "on":
                self._learner = Learner(
                    kept, distiller, self.config, self.experience, triage, self._tools
                )
        self._recorder = Recorder(kept)

    async def run(self, task: Task | str) -> Outcome:
        """Work on *task* as one episode.

        A role that breaks ends nothing: a teacher leaves the attempt unvalidated, a judge or
        checker the reward unknown, a distiller nothing learned. Cancelled, the episode is aborted.

        Raises:
            Exception: What the student raised, if it came to no answer at all; the episode is
                aborted, its reward unknown.
            StoreError: If memory fails before the student begins.
        """
        task = Task(task) if isinstance(task, str) else task
        facts = self._triage(task)
        purse = Purse(self._allowance(task))
        begun = await self._chosen(task, facts, purse)
        try:
            await self._recorder.begin(task, begun)
            work = Supervision(self._student, self._teacher, self.config, begun.aids, purse)
            tried = await work.run(task, begun.decision.lane)
            reward = await self._rewarder.reward(task, tried, purse)
        except BaseException:
            await self._recorder.abort(begun, priced(purse.rows, self.config.prices))
            raise
        return await self._end(task, facts, begun, tried, reward, purse)

    async def reward(
        self,
        episode: str,
        score: float,
        *,
        success: bool | None = None,
        by: Source = "human",
    ) -> bool:
        """Say what came of an earlier episode; return whether that counts.

        It does unless a reward of the same or a higher rank stands: see `Episodes.reward`.

        Raises:
            ConfigError: If learning is ``off``: nobody keeps episodes.
            NotFoundError: If the tenant has no such episode.
            RequestError: If it is no reward.
        """
        done = score >= self.config.success_from if success is None else success
        return await self._recorder.reward(episode, score, success=done, by=by)

    async def settled(self) -> None:
        """Wait until what is learned behind the answers so far is learned."""
        while self._behind:
            await asyncio.gather(*self._behind, return_exceptions=True)

    async def aclose(self) -> None:
        """Wait for what goes on; memory and engines stay their owners'. Idempotent."""
        await self.settled()

    # --- before ----------------------------------------------------------------------------------

    def _allowance(self, task: Task) -> Allowance:
        config = self.config
        tokens, cost, seconds = (
            own if own is not None else usual
            for own, usual in (
                (task.max_tokens, config.max_tokens),
                (task.max_cost, config.max_cost),
                (task.deadline_s, config.deadline_s),
            )
        )
        until = None if seconds is None else time.monotonic() + seconds
        whole = None if tokens is None else int(tokens)
        return Allowance(whole, cost, until, config.prices)

    async def _chosen(self, task: Task, facts: Facts, purse: Purse) -> Begun:
        """Recall, and choose the lane; nothing is written."""
        recalled = await self._recorder.recall(task, facts, self._tools)
        purse.rows += recalled.spent if recalled else ()
        decision = await self._chooser.choose(task, facts, recalled, purse)
        watched = self._teacher is not None and decision.lane is not Lane.AUTO
        teacher = await self._recorder.teach(task, facts, recalled) if watched else None
        return Begun(recalled, teacher, decision)

    # --- after -----------------------------------------------------------------------------------

    async def _end(
        self,
        task: Task,
        facts: Facts,
        begun: Begun,
        tried: tuple[Tried, ...],
        reward: Reward | None,
        purse: Purse,
    ) -> Outcome:
        rows = priced(purse.rows, self.config.prices)
        outcome = Outcome(
            output=tried[-1].attempt.output if tried else "",
            episode=begun.recalled.episode if begun.recalled else None,
            status=status_of(tried, reward),
            lane=begun.decision.lane,
            decision=begun.decision,
            tried=tried,
            reward=reward,
            ledger=Ledger(rows),
            learning=self.config.learning,
            shown=begun.shown,
        )
        if begun.recalled is not None:
            followed = adopted(begun.recalled.student.entries, tried)
            purse.faults += await self._recorder.end(outcome, followed)
            if tried:
                self._ended(task, facts, begun.recalled, outcome, followed)
        return replace(outcome, faults=tuple(purse.faults))

    def _ended(
        self,
        task: Task,
        facts: Facts,
        recalled: Recalled,
        outcome: Outcome,
        followed: tuple[str, ...],
    ) -> None:
        """Note what an episode cost, and begin to learn from it where somebody does."""
        spent, median_tokens = outcome.ledger.total, self.experience.median_tokens(self.scope)
        figures = Figures(outcome.lane.value, spent.tokens, spent.cost)
        n_episode = self.experience.note(self.scope, figures)
        if self._learner is None:
            return
        lesson = Lesson(
            task=task,
            facts=facts,
            recalled=recalled,
            tried=outcome.tried,
            adopted=followed,
            reward=outcome.reward,
            spent=spent,
            n_episode=n_episode,
            median_tokens=median_tokens,
        )
        self._learn(self._learner, lesson)

    def _learn(self, learner: Learner, lesson: Lesson) -> None:
        behind = asyncio.create_task(self._learned(learner, lesson))
        self._behind.add(behind)
        behind.add_done_callback(self._behind.discard)

    async def _learned(self, learner: Learner, lesson: Lesson) -> None:
        try:
            await learner.learn(lesson)
        # Nobody awaits this: a distiller that breaks is counted, and the next episode comes.
        except Exception as error:
            self.experience.counts[f"failed_{type(error).__name__}"] += 1
            _log.warning("an episode taught nothing: %s", type(error).__name__)
