"""One task under supervision: attempts, each of them validated, and what a plan adds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.plans import Step, TaskPlan
from elision.agents.atlas.purse import Purse, Tab
from elision.agents.atlas.student import Attempt, Brief, Planner, Student, joined
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import Review, Teacher, Validation, first_sentences
from elision.errors import UpstreamTimeoutError

_T = TypeVar("_T")
_UNKNOWN: Final = Validation(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aids:
    """What memory hands to an episode.

    Attributes:
        student: The block of advice for the student, or empty.
        teacher: Likewise for the teacher.
        plan: A plan that has served before; None without one.
        plan_for_teacher: Whether it is trusted enough for a teacher's prompt.
    """

    student: str = field(default="", repr=False)
    teacher: str = field(default="", repr=False)
    plan: TaskPlan | None = field(default=None, repr=False)
    plan_for_teacher: bool = False


class Supervision:
    """Runs the attempts of one episode; lives as long as it.

    Args:
        student: Does the work.
        teacher: Looks on; None: every attempt stays unvalidated.
        config: Retries, deadlines, escalation.
        aids: From memory.
        purse: Filled on the way.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher | None,
        config: AtlasConfig,
        aids: Aids,
        purse: Purse,
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._config = config
        self._aids = aids
        self._purse = purse
        self._plan: TaskPlan | None = None

    async def run(self, task: Task, lane: Lane) -> tuple[Tried, ...]:
        """Attempt *task* until one is valid, nobody can say, or retries or budget are used up.

        Raises:
            Exception: What the student raised, if it came to nothing at all.
            UpstreamTimeoutError: Likewise if it took longer than it may.
        """
        tried: list[Tried] = []
        guidance: tuple[str, ...] = ()
        while len(tried) <= self._config.max_retries:
            brief = Brief(lane=lane, advice=self._aids.student, guidance=guidance, n=len(tried) + 1)
            try:
                one = await self._attempt(task, brief)
            # The student's code is its owner's. Once it has answered, the answer stands.
            except Exception as error:
                if not tried:
                    raise
                self._purse.faults.append(f"student:{type(error).__name__}")
                break
            if one is None:
                self._purse.faults.append("budget")
                break
            tried.append(one)
            last = one.validation
            if last.valid is not False:
                break
            guidance += (last.guidance,) if last.guidance else ()
            lane = lane.closer if self._config.auto_escalate else lane
        return tuple(tried)

    async def _attempt(self, task: Task, brief: Brief) -> Tried | None:
        """Return an attempt as its lane has it; None if there was no budget for one."""
        if brief.lane is Lane.AUTO:
            seeded = self._seeded(brief)
            attempt = await self._work(task, seeded)
            return None if attempt is None else Tried(brief.lane, attempt, _UNKNOWN, seeded.plan)
        if brief.lane is Lane.PAIRED:
            return await self._checked(task, self._seeded(brief))
        plan = await self._planned(task, brief)
        if (
            brief.lane is Lane.ESCALATE
            and isinstance(self._student, Planner)
            and len(plan.steps) > 1
        ):
            return await self._stepwise(task, plan, brief)
        return await self._checked(task, replace(brief, plan=plan.told or None))

    def _seeded(self, brief: Brief) -> Brief:
        plan = self._plan or self._aids.plan
        return replace(brief, plan=plan.told) if plan else brief

    async def _checked(self, task: Task, brief: Brief) -> Tried | None:
        attempt = await self._work(task, brief)
        if attempt is None:
            return None
        validation, fault = await self._validated(task, attempt, brief)
        return Tried(brief.lane, attempt, validation, brief.plan, fault)

    async def _planned(self, task: Task, brief: Brief) -> TaskPlan:
        """Return the plan of this episode: seeded or drafted, then reviewed, once.

        A seed that a teacher may not be shown is passed over where one reviews.
        """
        if self._plan is None:
            shown = self._teacher is None or self._aids.plan_for_teacher
            seed = self._aids.plan if shown else None
            draft = seed or await self._drafted(task, brief)
            review = await self._reviewed(task, draft, brief)
            self._plan = review.plan or draft
        return self._plan

    async def _drafted(self, task: Task, brief: Brief) -> TaskPlan:
        if not isinstance(self._student, Planner) or not self._purse.left.open:
            return TaskPlan()
        tab = Tab(self._purse)
        turn = self._student.plan(task, self._with(brief, tab))
        drafted, _ = await self._purse.spared("student", turn, self._config.student.timeout_s)
        if drafted is None:
            return TaskPlan()
        tab.settle(drafted.spent)
        return drafted.plan

    async def _reviewed(self, task: Task, draft: TaskPlan, brief: Brief) -> Review:
        if self._teacher is None or not self._purse.left.open:
            return Review(TaskPlan())
        tab = Tab(self._purse)
        told = self._for_teacher(brief, tab)
        review, _ = await self._looking(self._teacher.review(task, draft, told))
        if review is None:
            return Review(TaskPlan())
        tab.settle(review.spent)
        return review

    async def _stepwise(self, task: Task, plan: TaskPlan, brief: Brief) -> Tried | None:
        """Do a plan level by level, the steps of a level side by side; then put it together.

        Where there is no budget to put it together, the answer is that of the last step that was
        done. Results are never strung together here: each reply passed the guards by itself, and a
        phrase may lie across two of them.
        """
        done: dict[str, str] = {}
        parts: list[Attempt] = []
        n_failed = 0
        for level in plan.levels:
            briefs = [self._for_step(plan, step, brief, done, len(level)) for step in level]
            turns = [self._step(task, one) for one in briefs]
            for step, turn in zip(level, await _side_by_side(turns, self._config), strict=True):
                parts += [one.attempt for one in turn]
                if turn:
                    done[step.id] = turn[-1].attempt.output
                    n_failed += turn[-1].validation.valid is False
            if any(step.id not in done for step in level):
                break
        results = {step.description: done[step.id] for step in plan.steps if step.id in done}
        last = replace(brief, done=results)
        final = await self._work(task, last) if len(done) == len(plan.steps) else None
        if final is None:
            whole = joined(parts, next(reversed(results.values()), ""))
            kept = Tried(brief.lane, whole, _UNKNOWN, plan.told, "budget", n_failed)
            return kept if parts else None
        attempt = joined([*parts, final], final.output)
        validation, fault = await self._validated(task, attempt, last)
        return Tried(brief.lane, attempt, validation, plan.told, fault, n_failed)

    def _for_step(
        self, plan: TaskPlan, step: Step, brief: Brief, done: dict[str, str], n_beside: int
    ) -> Brief:
        told = {one.id: one.description for one in plan.steps}
        met = {told[need]: done[need] for need in step.needs if need in done}
        share = self._purse.left.shared(n_beside)
        return replace(brief, step=step.description, done=met, allowance=share)

    async def _step(self, task: Task, brief: Brief) -> Sequence[Tried]:
        """Do one step, and once more with guidance for each retry while it is invalid.

        Returns:
            Its attempts; none if there was no budget for one.
        """
        tried: list[Tried] = []
        while len(tried) <= self._config.max_retries:
            attempt = await self._work(task, brief)
            if attempt is None:
                break
            brief = replace(brief, allowance=brief.allowance.after(attempt.spent))
            validation, fault = await self._validated(task, attempt, brief)
            tried.append(Tried(brief.lane, attempt, validation, None, fault))
            if validation.valid is not False:
                break
            left = brief.allowance.after(validation.spent)
            brief = replace(brief, allowance=left, n=brief.n + 1)
            if validation.guidance:
                brief = replace(brief, guidance=(*brief.guidance, validation.guidance))
        return tried

    async def _work(self, task: Task, brief: Brief) -> Attempt | None:
        """Return what the student comes to; None, and it is not asked, if nothing may be spent."""
        tab, seconds = Tab(self._purse), self._config.student.timeout_s
        told = self._with(brief, tab)
        if not told.allowance.open:
            return None
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                attempt = await self._student.attempt(task, told)
        except TimeoutError:
            if not clock.expired():
                raise
            raise UpstreamTimeoutError(
                f"the student took longer than its {seconds:g} seconds; raise student.timeout_s"
            ) from None
        tab.settle(attempt.spent)
        return attempt

    async def _validated(
        self, task: Task, attempt: Attempt, brief: Brief
    ) -> tuple[Validation, str | None]:
        """Return what the teacher found, or why nobody could say. A broken teacher ends nothing."""
        if self._teacher is None:
            return _UNKNOWN, "no_teacher"
        tab = Tab(self._purse)
        told = self._for_teacher(brief, tab)
        if not told.allowance.open:
            return _UNKNOWN, "budget"
        found, fault = await self._looking(self._teacher.validate(task, attempt, told))
        if found is None:
            return _UNKNOWN, fault
        tab.settle(found.spent)
        guidance = first_sentences(found.guidance, self._config.teacher.sentences)
        return replace(found, guidance=guidance), "malformed" if found.valid is None else None

    async def _looking(self, turn: Awaitable[_T]) -> tuple[_T | None, str | None]:
        return await self._purse.spared("teacher", turn, self._config.teacher.timeout_s)

    def _for_teacher(self, brief: Brief, tab: Tab) -> Brief:
        """Return *brief* with a teacher's advice, and without a seed that is not for its prompt."""
        own = self._plan is not None or self._aids.plan_for_teacher
        plan = brief.plan if own else None
        return replace(self._with(brief, tab), advice=self._aids.teacher, plan=plan)

    def _with(self, brief: Brief, tab: Tab) -> Brief:
        """Return *brief* with what is left now; a step keeps to its share of it."""
        left = self._purse.left
        allowed = left if brief.step is None else left.least(brief.allowance)
        return replace(brief, allowance=allowed, spend=tab.spend)


async def _side_by_side(turns: Sequence[Coroutine[Any, Any, _T]], config: AtlasConfig) -> list[_T]:
    """Await *turns*, so many at once; the first that breaks ends the others, and is raised."""
    gate = asyncio.Semaphore(config.side_by_side)

    async def passed(turn: Coroutine[Any, Any, _T]) -> _T:
        async with gate:
            return await turn

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(passed(turn)) for turn in turns]
    except ExceptionGroup as broken:
        raise broken.exceptions[0] from None
    finally:
        for turn in turns:
            turn.close()
    return [task.result() for task in running]
