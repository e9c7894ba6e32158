"""What is to be done in which order: steps, and the steps that they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MOST_STEPS: Final = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan.

    Attributes:
        id: Its name in the plan.
        description: What is to be done.
        needs: Ids of the steps whose results it reads.
    """

    id: str
    description: str = field(repr=False)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """Steps in an order in which they can be done; made by `TaskPlan.of`.

    Attributes:
        steps: Each after all those that it needs.
    """

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, steps: Iterable[Step], *, most: int = MOST_STEPS) -> TaskPlan:
        """Return a plan that can be carried out, whatever *steps* say.

        A step without a description, or whose id came before, is left out, as is what is beyond
        *most*. A need that names no step, the step itself or a step that waits for it in turn is
        dropped: of a circle, the step that came first goes first.
        """
        kept: dict[str, Step] = {}
        for step in steps:
            if step.description.strip() and step.id not in kept and len(kept) < most:
                kept[step.id] = step
        ordered: list[Step] = []
        waiting = list(kept.values())
        while waiting:
            done = {step.id for step in ordered}
            free = [s for s in waiting if not _missing(s, kept, done)] or waiting[:1]
            ordered += [Step(s.id, s.description, _met(s, done)) for s in free]
            waiting = [step for step in waiting if step not in free]
        return cls(tuple(ordered))

    @classmethod
    def listed(cls, descriptions: Sequence[str]) -> TaskPlan:
        """Return the plan of *descriptions*, each waiting for the one before it."""
        names = [str(n + 1) for n in range(len(descriptions))]
        return cls.of(
            Step(name, told, (names[n - 1],) if n else ())
            for n, (name, told) in enumerate(zip(names, descriptions, strict=True))
        )

    @property
    def levels(self) -> tuple[tuple[Step, ...], ...]:
        """The steps in groups, each of which needs earlier groups only."""
        level: dict[str, int] = {}
        for step in self.steps:
            level[step.id] = 1 + max((level[need] for need in step.needs), default=-1)
        return tuple(
            tuple(step for step in self.steps if level[step.id] == n)
            for n in range(1 + max(level.values(), default=-1))
        )

    @property
    def told(self) -> tuple[str, ...]:
        """The descriptions, in order."""
        return tuple(step.description for step in self.steps)

    def __bool__(self) -> bool:
        return bool(self.steps)


def _missing(step: Step, kept: dict[str, Step], done: set[str]) -> bool:
    return any(need in kept and need != step.id and need not in done for need in step.needs)


def _met(step: Step, done: set[str]) -> tuple[str, ...]:
    return tuple(need for need in dict.fromkeys(step.needs) if need in done)


class PlannedStep(BaseModel):
    """A step as a model writes it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1, max_length=32)]
    description: Annotated[str, Field(min_length=1, max_length=500)]
    needs: Annotated[tuple[str, ...], Field(max_length=16)] = ()


class PlanReply(BaseModel):
    """A plan as a model writes it."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    steps: Annotated[tuple[PlannedStep, ...], Field(min_length=1, max_length=32)]

    @property
    def plan(self) -> TaskPlan:
        """The plan that can be carried out of it."""
        return TaskPlan.of(Step(s.id, s.description, s.needs) for s in self.steps)
