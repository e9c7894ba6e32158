"""One task under supervision: attempts, each of them validated, and what a plan adds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.ledger import Allowance, Spent
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.plans import Step, TaskPlan
from elision.agents.atlas.student import Attempt, Brief, Planner, Student, joined
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import Review, Teacher, Validation, first_sentences

_T = TypeVar("_T")
_UNKNOWN: Final = Validation(None)


@dataclass(slots=True)
class Purse:
    """What an episode may spend and has spent; filled by every role.

    Attributes:
        allowance: At the beginning.
        rows: Everything spent since.
        faults: Roles that broke without ending the episode, with the error's class.
    """

    allowance: Allowance
    rows: list[Spent] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def left(self) -> Allowance:
        """What may still be spent."""
        return self.allowance.after(self.rows)

    async def spared(
        self, role: str, turn: Awaitable[_T], timeout_s: float | None
    ) -> tuple[_T | None, str | None]:
        """Await a turn that may break without ending the episode; a cancellation still does.

        Args:
            role: Whose turn.
            turn: What is awaited.
            timeout_s: Its deadline in seconds; None: none.

        Returns:
            What came of it, and why nothing did: ``timeout`` or the class of the error.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await turn, None
        except TimeoutError:
            fault = "timeout"
        # A role is its owner's code: whatever it raises, the student's answer stands.
        except Exception as error:
            fault = type(error).__name__
        self.faults.append(f"{role}:{fault}")
        return None, fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Aids:
    """What memory hands to an episode.

    Attributes:
        student: The block of advice for the student, or empty.
        teacher: Likewise for the teacher.
        plan: A plan that has served before; None without one.
    """

    student: str = field(default="", repr=False)
    teacher: str = field(default="", repr=False)
    plan: TaskPlan | None = field(default=None, repr=False)


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
        """
        tried: list[Tried] = []
        guidance: tuple[str, ...] = ()
        while len(tried) <= self._config.max_retries and self._purse.left.open:
            brief = Brief(lane=lane, advice=self._aids.student, guidance=guidance, n=len(tried) + 1)
            try:
                tried.append(await self._attempt(task, brief))
            # The student's code is its owner's. Once it has answered, the answer stands.
            except Exception as error:
                if not tried:
                    raise
                self._purse.faults.append(f"student:{type(error).__name__}")
                break
            last = tried[-1].validation
            if last.valid is not False:
                break
            guidance += (last.guidance,) if last.guidance else ()
            lane = lane.closer if self._config.auto_escalate else lane
        return tuple(tried)

    async def _attempt(self, task: Task, brief: Brief) -> Tried:
        if brief.lane is Lane.AUTO:
            attempt = await self._work(task, self._seeded(brief))
            return Tried(brief.lane, attempt, _UNKNOWN, self._seeded(brief).plan)
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

    async def _checked(self, task: Task, brief: Brief) -> Tried:
        attempt = await self._work(task, brief)
        validation, fault = await self._validated(task, attempt, brief)
        return Tried(brief.lane, attempt, validation, brief.plan, fault)

    async def _planned(self, task: Task, brief: Brief) -> TaskPlan:
        """Return the plan of this episode: seeded or drafted, then reviewed, once."""
        if self._plan is None:
            draft = self._aids.plan or await self._drafted(task, brief)
            review = await self._reviewed(task, draft, brief)
            self._plan = review.plan or draft
        return self._plan

    async def _drafted(self, task: Task, brief: Brief) -> TaskPlan:
        if not isinstance(self._student, Planner) or not self._purse.left.open:
            return TaskPlan()
        drafted, _ = await self._purse.spared(
            "student", self._student.plan(task, self._with(brief)), self._config.student.timeout_s
        )
        if drafted is None:
            return TaskPlan()
        self._purse.rows += drafted.spent
        return drafted.plan

    async def _reviewed(self, task: Task, draft: TaskPlan, brief: Brief) -> Review:
        if self._teacher is None or not self._purse.left.open:
            return Review(TaskPlan())
        told = replace(self._with(brief), advice=self._aids.teacher)
        review, _ = await self._looking(self._teacher.review(task, draft, told))
        if review is None:
            return Review(TaskPlan())
        self._purse.rows += review.spent
        return review

    async def _stepwise(self, task: Task, plan: TaskPlan, brief: Brief) -> Tried:
        """Do a plan level by level, the steps of a level side by side; then put it together."""
        done: dict[str, str] = {}
        parts: list[Attempt] = []
        n_failed = 0
        for level in plan.levels:
            if not self._purse.left.open:
                break
            briefs = [self._for_step(plan, step, brief, done, len(level)) for step in level]
            turns = [self._step(task, one) for one in briefs]
            for step, turn in zip(level, await _side_by_side(turns, self._config), strict=True):
                parts += [one.attempt for one in turn]
                done[step.id] = turn[-1].attempt.output
                n_failed += turn[-1].validation.valid is False
        results = {step.description: done[step.id] for step in plan.steps if step.id in done}
        if not self._purse.left.open:
            whole = joined(parts, "\n".join(results.values()))
            return Tried(brief.lane, whole, _UNKNOWN, plan.told, "budget", n_failed)
        last = replace(brief, done=results)
        final = await self._work(task, last)
        attempt = joined([*parts, final], final.output)
        validation, fault = await self._validated(task, attempt, last)
        return Tried(brief.lane, attempt, validation, plan.told, fault, n_failed)

    def _for_step(
        self, plan: TaskPlan, step: Step, brief: Brief, done: dict[str, str], n_beside: int
    ) -> Brief:
        told = {one.id: one.description for one in plan.steps}
        met = {told[need]: done[need] for need in step.needs if need in done}
        share = self._purse.left.shared(min(n_beside, self._config.side_by_side))
        return replace(brief, step=step.description, done=met, allowance=share)

    async def _step(self, task: Task, brief: Brief) -> Sequence[Tried]:
        """Do one step, and once more with guidance for each retry while it is invalid."""
        tried: list[Tried] = []
        for _ in range(self._config.max_retries + 1):
            attempt = await self._work(task, brief)
            validation, fault = await self._validated(task, attempt, brief)
            tried.append(Tried(brief.lane, attempt, validation, None, fault))
            spent = (*attempt.spent, *validation.spent)
            brief = replace(brief, allowance=brief.allowance.after(spent), n=brief.n + 1)
            if validation.valid is not False or not brief.allowance.open:
                break
            if validation.guidance:
                brief = replace(brief, guidance=(*brief.guidance, validation.guidance))
        return tried

    async def _work(self, task: Task, brief: Brief) -> Attempt:
        async with asyncio.timeout(self._config.student.timeout_s):
            attempt = await self._student.attempt(task, self._with(brief))
        self._purse.rows += attempt.spent
        return attempt

    async def _validated(
        self, task: Task, attempt: Attempt, brief: Brief
    ) -> tuple[Validation, str | None]:
        """Return what the teacher found, or why nobody could say. A broken teacher ends nothing."""
        if self._teacher is None:
            return _UNKNOWN, "no_teacher"
        if not self._purse.left.open:
            return _UNKNOWN, "budget"
        told = replace(self._with(brief), advice=self._aids.teacher)
        found, fault = await self._looking(self._teacher.validate(task, attempt, told))
        if found is None:
            return _UNKNOWN, fault
        self._purse.rows += found.spent
        guidance = first_sentences(found.guidance, self._config.teacher.sentences)
        return replace(found, guidance=guidance), "malformed" if found.valid is None else None

    async def _looking(self, turn: Awaitable[_T]) -> tuple[_T | None, str | None]:
        return await self._purse.spared("teacher", turn, self._config.teacher.timeout_s)

    def _with(self, brief: Brief) -> Brief:
        """Return *brief* with what is left now; a step keeps to its share of it."""
        left = self._purse.left
        return replace(brief, allowance=left if brief.step is None else left.least(brief.allowance))


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
