"""Who looks on: a teacher validates attempts and corrects plans, and never answers itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from elision.agents.atlas import prompts
from elision.agents.atlas.ledger import Spent
from elision.agents.atlas.plans import PlanReply, TaskPlan
from elision.agents.atlas.student import Attempt, Brief, noting
from elision.agents.atlas.task import Task
from elision.agents.speaking import Model, Speaker, ask

LONGEST_GUIDANCE: Final = 500
"""Characters of what a teacher says of one attempt."""
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Validation:
    """What a teacher found.

    Attributes:
        valid: None where nobody could say: never taken for either of the others.
        guidance: What to do better; the principle, not the answer.
        spent: What finding it cost.
    """

    valid: bool | None
    guidance: str = field(default="", repr=False)
    spent: tuple[Spent, ...] = ()


@dataclass(frozen=True, slots=True)
class Review:
    """A plan as a teacher would have it.

    Attributes:
        plan: Empty where the teacher had none: the student's stands.
        concerns: What may go wrong all the same.
        spent: What the review cost.
    """

    plan: TaskPlan
    concerns: str = field(default="", repr=False)
    spent: tuple[Spent, ...] = ()


class Teacher(Protocol):
    """Looks on."""

    async def validate(self, task: Task, attempt: Attempt, brief: Brief) -> Validation:
        """Say whether *attempt* does what *task*, or ``brief.step`` of it, asks."""
        ...

    async def review(self, task: Task, plan: TaskPlan, brief: Brief) -> Review:
        """Correct a plan."""
        ...


class _Verdict(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    valid: Annotated[bool, Field(strict=True)]
    guidance: str = ""


class _Correction(PlanReply):
    concerns: str = ""


class SpeakerTeacher:
    """A teacher that is a model behind a prompt. What it says is checked, never trusted.

    Args:
        speaker: The model.
        max_tokens: Most tokens of one reply.
        temperature: See `Sampling`.
        seed: See `Sampling`.
        sentences: Most sentences of guidance.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = None,
        sentences: int = 2,
    ) -> None:
        self.speaker = speaker
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._seed = seed
        self._sentences = sentences

    async def validate(self, task: Task, attempt: Attempt, brief: Brief) -> Validation:
        """See `Teacher.validate`; a reply that is no verdict twice is None."""
        spent: list[Spent] = []
        messages = prompts.for_validation(task, attempt, brief)
        verdict = await self._ask(messages, _Verdict, brief, spent)
        if verdict is None:
            return Validation(None, spent=tuple(spent))
        told = first_sentences(verdict.guidance, self._sentences)
        return Validation(verdict.valid, told, tuple(spent))

    async def review(self, task: Task, plan: TaskPlan, brief: Brief) -> Review:
        """See `Teacher.review`; a reply that is no plan twice leaves the student's."""
        spent: list[Spent] = []
        found = await self._ask(prompts.for_review(task, plan, brief), _Correction, brief, spent)
        if found is None:
            return Review(TaskPlan(), spent=tuple(spent))
        return Review(found.plan, first_sentences(found.concerns, self._sentences), tuple(spent))

    async def _ask(
        self, messages: list[Any], schema: type[Model], brief: Brief, spent: list[Spent]
    ) -> Model | None:
        return await ask(
            self.speaker,
            messages,
            schema,
            spend=noting("teacher", self.speaker.name, spent, brief),
            max_tokens=brief.allowance.reply(self._max_tokens),
            temperature=self._temperature,
            seed=self._seed,
            again=lambda: brief.allowance.after(spent).open,
        )


def first_sentences(text: str, n: int) -> str:
    """Return the first *n* sentences of *text*, at most `LONGEST_GUIDANCE` characters."""
    return " ".join(_SENTENCE.split(" ".join(text.split()))[:n])[:LONGEST_GUIDANCE]
