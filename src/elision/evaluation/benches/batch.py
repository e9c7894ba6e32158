"""Streams at once through one engine: against one stream, batched ``generate``, and taking turns.

The same eight questions every time: one after another, in pairs, in fours, all at once. Every
group of streams carries a number of its own in front of its prompts, so that no prompt is there
already, and drafts from a pool of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

from elision.contract import Request
from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import PROMPTS
from elision.evaluation.benches.racing import WARM_UP, Contestant, Run, Stable, ask, opened
from elision.evaluation.benches.ratios import geometric_mean, rate
from elision.evaluation.benches.rivals import Generate, original
from elision.evaluation.figures import Figure, Goal, of

QUESTIONS: Final = (
    *PROMPTS,
    "Explain to a beginner how to plan a small vegetable garden.",
    "Why do people in different countries drive on different sides of the road?",
)
SIZES: Final = (1, 2, 4, 8)
N_ALL: Final = len(QUESTIONS)

Way: TypeAlias = Callable[[list[Request]], Run]
"""Answers all questions and says what they took together."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield every figure whose name begins with ``batch``."""
    n_tokens = 128 if setup.data else setup.repeats(64, 24)
    with opened(setup, "bfloat16") as stable:
        runs = _turns(_ways(setup, stable), n_tokens, setup.repeats(2, 1))
        conditions: dict[str, Any] = {
            "model": stable.engine.name, "dtype": stable.dtype, "threads": stable.n_threads,
            "questions": N_ALL, "tokens": f"{n_tokens} greedy", "speculation": "auto",
        }  # fmt: skip
        yield from figures(runs, **conditions)


def _ways(setup: Setup, stable: Stable) -> dict[str, Way]:
    """Return every way to answer all questions, warmed."""
    ours = {n: stable.ours("auto", f"batch{n}", reuse=True) for n in SIZES}
    apart = stable.ours("auto", "apart", reuse=False)
    theirs = Generate(original=original(setup, stable.dtype), n_threads=stable.n_threads)
    contestants: tuple[Contestant, ...] = (*ours.values(), apart, theirs)
    for contestant in contestants:
        contestant.run(ask(WARM_UP, 16))
    return {
        **{str(n): partial(_in_portions, each.run_together, n) for n, each in ours.items()},
        "interleaved": apart.run_together,
        "generate": theirs.run_batch,
    }


def _in_portions(way: Way, n: int, requests: list[Request]) -> Run:
    """Answer *requests* *n* at a time."""
    runs = [way(requests[start : start + n]) for start in range(0, len(requests), n)]
    return Run("", sum(run.n_tokens for run in runs), sum(run.seconds for run in runs))


def _turns(ways: dict[str, Way], n_tokens: int, n_turns: int) -> dict[str, list[Run]]:
    """Have every way answer all questions *n_turns* times, in turns at going first."""
    found: dict[str, list[Run]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(n_turns):
        shift = turn * len(names) // n_turns
        for name in (*names[shift:], *names[:shift]):
            found[name].append(ways[name](requests_of(turn, n_tokens)))
    return found


def requests_of(turn: int, n_tokens: int) -> list[Request]:
    """Return the questions, each with a number in front that no other turn's has."""
    return [
        ask(f"{turn * N_ALL + number + 1}. {question}", n_tokens)
        for number, question in enumerate(QUESTIONS)
    ]


def figures(runs: dict[str, list[Run]], **conditions: Any) -> Iterator[Figure]:
    """Yield the figures that *runs*, by way and turn, come to."""
    for n in SIZES[1:]:
        goal = Goal(value=3.0, sense=">=") if n == N_ALL else None
        yield _ratio(f"batch.{n}", runs[str(n)], runs["1"], goal, **conditions)
    everything = runs[str(N_ALL)]
    at_least_as_fast = Goal(value=1.0, sense=">=")
    yield _ratio("batch.vs_generate", everything, runs["generate"], at_least_as_fast, **conditions)
    yield _ratio("batch.vs_interleaved", everything, runs["interleaved"], None, **conditions)


def _ratio(
    name: str, fast: list[Run], slow: list[Run], goal: Goal | None, **conditions: Any
) -> Figure:
    ratios = [f.rate / s.rate for f, s in zip(fast, slow, strict=True)]
    return of(
        name, ratios, "x", goal=goal, pick=geometric_mean, **conditions,
        tokens_per_s=round(rate(fast), 1), against=round(rate(slow), 1),
        statistic="total tokens/s over total tokens/s, geometric mean of the turns",
    )  # fmt: skip
