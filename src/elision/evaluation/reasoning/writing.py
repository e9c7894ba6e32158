"""Written answers: asked of the engine as a server would ask it, several at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from elision.contract import Engine, Plan, Recipe, Request, Sampling, collect
from elision.evaluation.reasoning.data import Problem
from elision.evaluation.tofu.sheet import Sheet
from elision.middleware.profiles import sampling_recipes

Tick: TypeAlias = Callable[[], None]
"""Called after each item."""

AT_ONCE: Final = 8
"""Replies written at a time; they share forwards."""
N_GRAM: Final = 20
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A reply to be written.

    Attributes:
        key: Under which it is kept.
        problem: What is asked.
        recipes: What acts, temperature left out.
        temperature: Of the draw; 0 is greedy.
        seed: Of the draw, and of what a recipe draws for itself.
    """

    key: str
    problem: Problem
    recipes: tuple[Recipe, ...]
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What was written.

    Attributes:
        text: All of it.
        finish: Why it ended.
        n_tokens: Its tokens.
        notes: Sums of what the sessions noted.
    """

    text: str = field(repr=False)
    finish: str
    n_tokens: int
    notes: Mapping[str, float] = field(default_factory=dict)


async def write(
    engine: Engine, tasks: Iterable[Task], sheet: Sheet, *, max_tokens: int, tick: Tick
) -> dict[str, Reply]:
    """Return every task's reply by its key; those that *sheet* has are not written again.

    Raises:
        ElisionError: The first that a task met; the others are dropped, what was written is kept.
    """
    room, found = asyncio.Semaphore(AT_ONCE), dict[str, Reply]()

    async def one(task: Task) -> None:
        async with room:
            row = sheet.get(task.key)
            if row is None:
                row = await _ask(engine, task, max_tokens)
                sheet.put(task.key, row)
        found[task.key] = Reply(**row)
        tick()

    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(one(task))
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    return found


async def _ask(engine: Engine, task: Task, max_tokens: int) -> dict[str, Any]:
    sampling = Sampling(temperature=task.temperature, seed=task.seed)
    room = min(max_tokens, task.problem.most_tokens or max_tokens)
    request = _request(task.problem, sampling, room)
    recipes = (*task.recipes, *sampling_recipes(sampling))
    whole = await collect(engine.stream(Plan(request=request, recipes=recipes, reuse=True)))
    return {
        "text": whole.text,
        "finish": whole.choices[0].finish,
        "n_tokens": whole.usage.completion_tokens,
        "notes": dict(whole.report.get("notes", {})),
    }


def _request(problem: Problem, sampling: Sampling, max_tokens: int) -> Request:
    if problem.raw:
        return Request(
            kind="text", prompt=problem.prompt, sampling=sampling, max_tokens=max_tokens,
            stop=("\n",),
        )  # fmt: skip
    messages = ({"role": "user", "content": problem.prompt},)
    return Request(messages=messages, sampling=sampling, max_tokens=max_tokens)


def is_right(problem: Problem, text: str) -> bool:
    """Return whether *text* has the answer: as its last number; of a raw problem, to begin with."""
    if problem.raw:
        wanted = problem.answer.split()
        return text.split()[: len(wanted)] == wanted
    number = last_number(text)
    return number is not None and abs(number - float(problem.answer)) < 1e-6


def is_valid(problem: Problem, text: str) -> bool:
    """Return whether *text* has an answer's form: as many numbers to begin with, or one at all."""
    if problem.raw:
        first = text.split()[: len(problem.answer.split())]
        return len(first) == len(problem.answer.split()) and all(map(str.isdigit, first))
    return last_number(text) is not None


def last_number(text: str) -> float | None:
    """Return the last number in *text*, commas between digits left out; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def repeats(text: str, n: int = N_GRAM) -> bool:
    """Return whether some *n* words in a row occur twice in *text*: a loop, nearly always."""
    words = text.split()
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(grams)) < len(grams)
