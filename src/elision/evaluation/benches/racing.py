"""Races: several ways to answer the same question, in turn, and what their times come to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch

from elision.contract import Completion, Plan, Recipe, Request, Sampling, collect, in_order
from elision.evaluation.bench import Setup
from elision.evaluation.spec_bench import Question, first_of_each
from elision.middleware.engines.loading import load_engine
from elision.middleware.engines.local import LocalEngine
from elision.middleware.models.progress import RichProgress
from elision.middleware.profiles import sampling_recipes
from elision.middleware.speculation.base import Mode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elision.contract import Delta

WARM_UP = "Describe the sea in one sentence."


@dataclass(frozen=True, slots=True)
class Run:
    """One answer and what it took.

    Attributes:
        text: What was written; empty where only the time counts.
        n_tokens: Tokens written, the end token left out.
        seconds: From the request to its end, prefill included.
        first_s: From the request to the first text; 0 where that is not known.
        n_steps: Forwards behind the prompt; 0 where that is not known.
    """

    text: str
    n_tokens: int
    seconds: float
    first_s: float = 0.0
    n_steps: int = 0

    @property
    def rate(self) -> float:
        """Tokens per second, prefill included."""
        return self.n_tokens / self.seconds


class Contestant(Protocol):
    """A way to answer a request."""

    def run(self, request: Request) -> Run:
        """Answer *request*, alone on the machine, and say what it took."""
        ...


Runs: TypeAlias = "dict[str, list[Run]]"
"""One contestant's runs, by group, in the order of the questions."""


def ask(text: str, n_tokens: int, *, temperature: float = 0.0, seed: int = 0) -> Request:
    """Return the chat request that asks *text* for at most *n_tokens*."""
    return Request(
        messages=({"role": "user", "content": text},),
        sampling=Sampling(temperature=temperature, seed=seed),
        max_tokens=n_tokens,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our engine as a client meets it: threads, queue, event loop and all.

    Attributes:
        engine: What answers.
        n_threads: Its compute threads.
        speculation: See `Plan.speculation`.
        pool: Stands for the profile: contestants that name the same one draft from what the
            others have written.
        recipes: What acts on the scores beside what the sampling asks for.
        reuse: See `Plan.reuse`.
    """

    engine: LocalEngine
    n_threads: int
    speculation: Mode
    pool: str
    recipes: tuple[Recipe, ...] = ()
    reuse: bool = False

    def plan(self, request: Request) -> Plan:
        """Return the plan for *request*."""
        return Plan(
            request=request,
            recipes=in_order((*self.recipes, *sampling_recipes(request.sampling))),
            tenant=f"bench-{self.pool}",
            profile=self.pool,
            speculation=self.speculation,
            reuse=self.reuse,
        )

    def run(self, request: Request) -> Run:
        """See `Contestant.run`."""
        torch.set_num_threads(self.n_threads)  # MKL's count is the process's, not the thread's
        return asyncio.run(timed(self.engine, self.plan(request)))

    def run_together(self, requests: Sequence[Request]) -> Run:
        """Answer *requests* at once and return what all of them took."""
        torch.set_num_threads(self.n_threads)
        return asyncio.run(timed_together(self.engine, [self.plan(r) for r in requests]))


async def timed(engine: LocalEngine, plan: Plan) -> Run:
    """Stream *plan* and return what it took."""
    firsts = list[float]()
    start = time.perf_counter()
    done = await collect(_noting_first(engine.stream(plan), firsts))
    took = time.perf_counter() - start
    first = firsts[0] - start if firsts else 0.0
    return Run(done.text, done.usage.completion_tokens, took, first, n_steps(done))


async def timed_together(engine: LocalEngine, plans: Sequence[Plan]) -> Run:
    """Stream all *plans* at once and return what that took."""
    start = time.perf_counter()
    runs = await asyncio.gather(*(timed(engine, plan) for plan in plans))
    took = time.perf_counter() - start
    return Run("", sum(run.n_tokens for run in runs), took, n_steps=sum(r.n_steps for r in runs))


async def _noting_first(
    deltas: AsyncGenerator[Delta, None], firsts: list[float]
) -> AsyncGenerator[Delta, None]:
    async for delta in deltas:
        firsts.append(time.perf_counter())
        yield delta


def n_steps(done: Completion) -> int:
    """Return how many forwards behind the prompt *done* took; 0 if the report does not say."""
    return int(dict(done.report.get("speculation") or {}).get("steps", 0))


# --- engines -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stable:
    """An engine under test and what it runs on.

    Attributes:
        engine: It.
        dtype: Number format.
        n_threads: Compute threads.
    """

    engine: LocalEngine
    dtype: str
    n_threads: int

    def about(self, course: Course) -> dict[str, Any]:
        """Return what a figure measured on it over *course* says of the two."""
        on = {"model": self.engine.name, "dtype": self.dtype, "threads": self.n_threads}
        return {**on, **course.conditions}

    def ours(
        self,
        speculation: Mode,
        pool: str,
        recipes: tuple[Recipe, ...] = (),
        *,
        reuse: bool = False,
    ) -> Ours:
        """Return this engine as a contestant."""
        return Ours(
            engine=self.engine,
            n_threads=self.n_threads,
            speculation=speculation,
            pool=pool,
            recipes=recipes,
            reuse=reuse,
        )


@contextmanager
def opened(setup: Setup, dtype: str) -> Iterator[Stable]:
    """Load the engine as `elision serve` does, and close it in the end.

    Args:
        setup: Model, cache and threads; 0 threads are measured.
        dtype: Number format; ``auto`` is measured.
    """
    settings = setup.settings.model_copy(update={"dtype": dtype})
    with RichProgress() as progress:
        engine = load_engine(settings.model, settings, progress=progress)
    try:
        yield stable(engine)
    finally:
        asyncio.run(engine.aclose())


def stable(engine: LocalEngine) -> Stable:
    """Return *engine* with what it runs on."""
    dtype, n_threads = engine.borrow(
        lambda model: (str(model.model.dtype).removeprefix("torch."), torch.get_num_threads())
    ).result()
    return Stable(engine, dtype, n_threads)


# --- races ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a race is run over.

    Attributes:
        questions: In their order.
        n_tokens: Most tokens per answer.
        temperature: Of every request.
        name: Where the questions come from.
    """

    questions: tuple[Question, ...]
    n_tokens: int
    temperature: float = 0.0
    name: str = ""

    def requests(self) -> Iterator[tuple[str, Request]]:
        """Yield each question's group and request; its seed is its number."""
        for seed, question in enumerate(self.questions):
            request = ask(question.text, self.n_tokens, temperature=self.temperature, seed=seed)
            yield question.group, request

    def shorter(self, per_group: int, n_tokens: int | None = None) -> Course:
        """Return it over the first *per_group* questions of each group, in *n_tokens* at most."""
        return replace(
            self,
            questions=first_of_each(self.questions, per_group),
            n_tokens=min(self.n_tokens, n_tokens or self.n_tokens),
        )

    @property
    def conditions(self) -> dict[str, Any]:
        """What a figure says of it."""
        how = f"T = {self.temperature:g}" if self.temperature else "greedy"
        return {
            "questions": f"{len(self.questions)} of {self.name}",
            "tokens": f"{self.n_tokens} {how}",
        }


def race(contestants: Mapping[str, Contestant], course: Course) -> dict[str, Runs]:
    """Have all *contestants* answer question after question, in turns at going first.

    Each is warmed first, with a question that is not in the race.
    """
    for contestant in contestants.values():
        contestant.run(ask(WARM_UP, max(1, course.n_tokens // 4), temperature=course.temperature))
    found: dict[str, Runs] = {name: {} for name in contestants}
    names = list(contestants)
    for turn, (group, request) in enumerate(course.requests()):
        shift = turn % len(names)
        for name in (*names[shift:], *names[:shift]):
            found[name].setdefault(group, []).append(contestants[name].run(request))
    return found
