"""Speculation against our own plain loop and against ``transformers.generate``.

With ``--data`` Spec-Bench's questions are asked, four of each group; else one of our own per group.
Answers that end early are fine: what counts is tokens per second, prefill included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from elision.evaluation.bench import Setup
from elision.evaluation.benches.extremes import static_tree, with_guard, worst
from elision.evaluation.benches.generates_best import against_best
from elision.evaluation.benches.identity import flips
from elision.evaluation.benches.profiles import identical
from elision.evaluation.benches.racing import Course, Runs, Stable, opened, race
from elision.evaluation.benches.ratios import (
    Ratios,
    by_group,
    decoding_rate,
    every,
    exactly,
    geometric_mean,
    listed,
    overall,
    rate_of_all,
    tokens_per_step,
)
from elision.evaluation.benches.rivals import LOOKUP_TOKENS, Generate, original
from elision.evaluation.figures import Figure, of
from elision.evaluation.spec_bench import own, read

NEVER_SLOWER = 0.97

Results: TypeAlias = dict[str, Runs]
"""By contestant."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield every figure whose name begins with ``speed``."""
    course = course_of(setup)
    with opened(setup, "bfloat16") as stable:
        results = _raced(setup, stable, course)
        yield from _against_plain(stable, course, results, "", goal=1.6)
        yield from _against_lookup(stable, course, results, "")
        yield from _steps(stable, course, results["drafted"])
        yield _flipped(stable, course, results)
        yield _sampled(stable, course)
        yield worst(setup, stable)
        yield with_guard(stable, course.shorter(2))
        yield static_tree(stable, course.shorter(setup.repeats(2, 1), 96))
    with opened(setup, "float32") as stable:
        results = _raced(setup, stable, course)
        yield from _against_plain(stable, course, results, ".fp32", goal=None)
        yield from _against_lookup(stable, course, results, ".fp32")
        yield identical(setup, stable, course, results)
    yield against_best(setup, course)


def course_of(setup: Setup) -> Course:
    """Return what *setup* asks for: Spec-Bench, or our own questions, fewer if it is in a hurry."""
    if setup.data is not None:
        return Course(questions=read(setup.data), n_tokens=128, name="Spec-Bench")
    questions = own()[: setup.repeats(6, 2)]
    return Course(questions=questions, n_tokens=setup.repeats(64, 24), name="our own")


def _raced(setup: Setup, stable: Stable, course: Course) -> Results:
    theirs = original(setup, stable.dtype)
    return race(
        {
            "plain": stable.ours("off", "race"),
            "drafted": stable.ours("auto", "race"),
            "lookup": Generate(original=theirs, n_threads=stable.n_threads, lookup=True),
        },
        course,
    )


def _against_plain(
    stable: Stable, course: Course, results: Results, suffix: str, *, goal: float | None
) -> Iterator[Figure]:
    drafted, plain = results["drafted"], results["plain"]
    ratios, name = Ratios.of(drafted, plain), f"speed.vs_plain{suffix}"
    yield overall(
        name, ratios, goal=goal, **stable.about(course),
        drafted_per_s=round(rate_of_all(drafted), 1), plain_per_s=round(rate_of_all(plain), 1),
        behind_prefill=round(decoding_rate(drafted) / decoding_rate(plain), 3),
    )  # fmt: skip
    yield from by_group(name, ratios, goal=NEVER_SLOWER, **stable.about(course))


def _against_lookup(
    stable: Stable, course: Course, results: Results, suffix: str
) -> Iterator[Figure]:
    ratios = Ratios.of(results["drafted"], results["lookup"])
    yield from by_group(
        f"speed.vs_lookup{suffix}", ratios, goal=1.0, **stable.about(course),
        theirs=f"generate(prompt_lookup_num_tokens={LOOKUP_TOKENS})",
    )  # fmt: skip


def _steps(stable: Stable, course: Course, drafted: Runs) -> Iterator[Figure]:
    """Yield how many tokens a forward gave, and in the conditions what each rank was worth."""
    name, about = "speed.tokens_per_step", {**stable.about(course), "mode": "auto"}
    hits = {gauge: share for gauge, share in stable.engine.stats().items() if "rank" in gauge}
    known = {group: tokens_per_step(runs) for group, runs in drafted.items()}
    groups = {group: value for group, value in known.items() if value}
    if not groups:
        return
    yield of(
        name, list(groups.values()), "tokens", pick=geometric_mean, **about,
        draft_hits=listed(hits), statistic="geometric mean of the groups; spread over them",
    )  # fmt: skip
    for group, value in groups.items():
        samples = [tokens_per_step([run]) for run in drafted[group]]
        yield exactly(f"{name}.{group}", value, samples, "tokens", **about)


def _flipped(stable: Stable, course: Course, results: Results) -> Figure:
    share = flips(_texts(results["plain"]), _texts(results["drafted"]))
    return of("speed.flips.bf16", [share], "of texts", **stable.about(course))


def _texts(runs: Runs) -> list[str]:
    return [run.text for run in every(runs)]


def _sampled(stable: Stable, course: Course) -> Figure:
    course = replace(course.shorter(2), temperature=0.7)
    pair = {"plain": stable.ours("off", "sampled"), "drafted": stable.ours("auto", "sampled")}
    results = race(pair, course)
    return overall(
        "speed.vs_plain.t07", Ratios.of(results["drafted"], results["plain"]), goal=None,
        **stable.about(course), seeds="one per question",
        tokens_per_step=round(tokens_per_step(every(results["drafted"])), 3),
        flips=round(flips(_texts(results["plain"]), _texts(results["drafted"])), 4),
    )  # fmt: skip
