"""Speculation where it cannot help, under a guard, and with the published tree."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from elision.contract import Request, Sampling
from elision.evaluation.bench import Setup
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.benches.racing import Course, Ours, Run, Stable, race
from elision.evaluation.benches.ratios import Ratios, exactly, geometric_mean, tokens_per_step
from elision.evaluation.benches.static_drafts import accepted_per_step
from elision.evaluation.figures import Figure, Goal, of
from elision.guards.guard import Guard

if TYPE_CHECKING:
    from elision.contract import Recipe

WILD: Final = 10.0
"""A temperature at which nobody can guess what comes next."""

N_WILD_PROMPT: Final = 64
"""Random tokens before the answer."""

PAPER: Final = "2.70 (Vicuna-7B, Token Recycling, static tree)"

NEVER_SLOWER: Final = Goal(value=0.97, sense=">=")


def worst(setup: Setup, stable: Stable) -> Figure:
    """Return what drafting costs where next to nothing of it is accepted."""
    n_tokens = setup.repeats(512, 48)
    plain, drafted = stable.ours("off", "worst"), stable.ours("auto", "worst")
    pairs = list[tuple[Run, Run]]()
    for seed in range(setup.repeats(3 if setup.data else 2, 2) + 1):
        pair = _both(plain, drafted, random_text(n_tokens if seed else 8, seed=seed))
        pairs += [pair] if seed else []  # the first warms both
    return of(
        "speed.worst", [d.rate / p.rate for p, d in pairs], "x", goal=NEVER_SLOWER,
        pick=geometric_mean, model=stable.engine.name, dtype=stable.dtype,
        threads=stable.n_threads,
        tokens=f"{n_tokens} at T = {WILD:g} behind {N_WILD_PROMPT} random ones",
        tokens_per_step=round(tokens_per_step([d for _, d in pairs]), 3),
        statistic="tokens/s over tokens/s, geometric mean over seeds",
    )  # fmt: skip


def _both(plain: Ours, drafted: Ours, request: Request) -> tuple[Run, Run]:
    """Return the runs of both; requests with an odd seed are answered by the plain one first."""
    if (request.sampling.seed or 0) % 2:
        return plain.run(request), drafted.run(request)
    fast = drafted.run(request)
    return plain.run(request), fast


def random_text(n_tokens: int, *, seed: int) -> Request:
    """Return a request whose prompt and answer nobody can foresee."""
    dice = random.Random(seed)  # noqa: S311 -- test data, not a secret
    prompt = tuple(dice.randrange(32, 250) for _ in range(N_WILD_PROMPT))
    sampling = Sampling(temperature=WILD, seed=seed)
    return Request(kind="text", prompt=prompt, sampling=sampling, max_tokens=n_tokens)


def with_guard(stable: Stable, course: Course) -> Figure:
    """Return what a guard with 1,000 phrases leaves of the drafted speed."""
    results = race(
        {
            "guarded": stable.ours("auto", "guarded", thousand_phrases(stable)),
            "unguarded": stable.ours("auto", "unguarded"),
        },
        course,
    )
    ratios = Ratios.of(results["guarded"], results["unguarded"])
    pairs = [ratio for group in ratios.pairs.values() for ratio in group]
    return of(
        "speed.guard_1000", pairs, "x", goal=NEVER_SLOWER, **stable.about(course), phrases=1000,
        statistic="tokens/s with the guard over without, both drafted; median of the questions",
    )  # fmt: skip


def thousand_phrases(stable: Stable) -> tuple[Recipe, ...]:
    """Return the guard of 1,000 made-up phrases."""
    lexicon = stable.engine.lexicon
    assert lexicon is not None
    return Guard.compile(made_up(1_000), epoch=1).recipes(lexicon)


def static_tree(stable: Stable, course: Course) -> Figure:
    """Return how many tokens the published tree of 80 nodes gains per forward."""
    requests = [request for _, request in course.requests()]
    steps = stable.engine.borrow(lambda model: accepted_per_step(model, requests)).result()
    return exactly(
        "speed.static_80", sum(map(sum, steps)) / sum(map(len, steps)),
        [sum(each) / len(each) for each in steps], "tokens", **stable.about(course),
        tree="80 nodes; hot; prompts not seeded", paper=PAPER,
        statistic="mean over all steps; spread over the questions",
    )  # fmt: skip
