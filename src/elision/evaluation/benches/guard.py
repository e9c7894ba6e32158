"""What the phrase mask costs: per token on replayed logits, in a running engine, to compile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from elision.contract import Context, Here, Plan, Recipe, Request, Sampling, Session, collect
from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import PROMPTS, bench_model
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.guards.guard import Guard
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine

N_TOKENS = 128


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of the hard layer."""
    model = bench_model(setup)
    yield from _per_token(model, setup)
    yield from _in_engine(model, setup)
    yield from _compile(setup)


# --- per token -----------------------------------------------------------------------------------


def _per_token(model: CausalModel, setup: Setup) -> Iterator[Figure]:
    torch.set_num_threads(1)
    rows, tokens = _replay(model, setup)
    for n, goal in ((1_000, 150), (10_000, 200)):
        (mask,) = _recipes(n, model)
        took = _timed(mask, model, rows, tokens)
        conditions: dict[str, Any] = {
            "tokenizer": model.name, "vocab": model.vocab_size, "phrases": n, "threads": 1,
            "statistic": "p50 of adjust + advance", "state": "cold memo at the first token",
        }  # fmt: skip
        name = f"guard.us_per_token_{n}"
        yield of(name, took, "µs", goal=Goal(value=goal, sense="<="), **conditions)
        yield of(
            f"{name}.p99", took, "µs", goal=Goal(value=1000, sense="<="),
            pick=lambda samples: percentile(samples, 0.99), **{**conditions, "statistic": "p99"},
        )  # fmt: skip


def _recipes(n: int, model: CausalModel) -> tuple[Recipe, ...]:
    return Guard.compile(made_up(n), epoch=1).recipes(model.lexicon)


def _replay(model: CausalModel, setup: Setup) -> tuple[Tensor, list[int]]:
    """Return the rows of scores along greedy answers to plain questions, and the answers."""
    rows, tokens = list[Tensor](), list[int]()
    n_tokens = setup.repeats(N_TOKENS, 48)
    with torch.inference_mode():
        for prompt in PROMPTS[: setup.repeats(6, 3)]:
            ids, cache = model.render(_request(prompt, n_tokens)).ids, model.new_cache()
            row = model.score(ids, cache)
            for _ in range(n_tokens):
                token = int(row.argmax())
                rows.append(row.float().clone())
                tokens.append(token)
                row = model.score((token,), cache)
    return torch.stack(rows), tokens


def _timed(mask: Recipe, model: CausalModel, rows: Tensor, tokens: list[int]) -> list[float]:
    context = Context(lexicon=model.lexicon, vocab_size=model.vocab_size)
    session: Session = mask.begin(context)
    took = []
    for position, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        here = Here(row, position=position)
        start = time.perf_counter_ns()
        session.adjust(row, here)
        session = session.advance(token)
        took.append((time.perf_counter_ns() - start) / 1e3)
    return took


# --- in a running engine -------------------------------------------------------------------------


def _in_engine(model: CausalModel, setup: Setup) -> Iterator[Figure]:
    ratios = asyncio.run(_guarded_against_plain(model, setup))
    yield of(
        "guard.ratio_1000", ratios, "x", goal=Goal(value=0.97, sense=">="), model=model.name,
        dtype="float32", threads=1, tokens=f"{setup.repeats(N_TOKENS, 32)} greedy", phrases=1000,
        statistic="tokens/s guarded over plain, runs interleaved",
    )  # fmt: skip


async def _guarded_against_plain(model: CausalModel, setup: Setup) -> list[float]:
    engine, recipes = LocalEngine(model, n_threads=1), _recipes(1_000, model)
    n_tokens, ratios = setup.repeats(N_TOKENS, 32), list[float]()
    try:
        await _run(engine, PROMPTS[0], recipes, 4)
        for turn, prompt in enumerate(PROMPTS[: setup.repeats(6, 3)] * setup.repeats(2, 1)):
            order = ((), recipes) if turn % 2 else (recipes, ())
            rate = {bool(r): await _run(engine, prompt, r, n_tokens) for r in order}
            ratios.append(rate[True] / rate[False])
    finally:
        await engine.aclose()
    return ratios


async def _run(
    engine: LocalEngine, prompt: str, recipes: tuple[Recipe, ...], n_tokens: int
) -> float:
    plan = Plan(request=_request(prompt, n_tokens), recipes=recipes)
    start = time.perf_counter()
    done = await collect(engine.stream(plan))
    return done.usage.completion_tokens / (time.perf_counter() - start)


def _request(prompt: str, n_tokens: int) -> Request:
    return Request(
        messages=({"role": "user", "content": prompt},),
        sampling=Sampling(temperature=0.0),
        max_tokens=n_tokens,
    )


# --- to compile ----------------------------------------------------------------------------------


def _compile(setup: Setup) -> Iterator[Figure]:
    runs = [_compiled(setup) for _ in range(setup.repeats(3, 1))]
    conditions: dict[str, Any] = {
        "phrases": 10_000, "tokenizer": setup.settings.model, "includes": "first mask",
        "process": "fresh, tokenizer loaded before",
    }  # fmt: skip
    seconds, megabytes = [run["s"] for run in runs], [run["mb"] for run in runs]
    yield of("guard.compile_s", seconds, "s", goal=Goal(value=3, sense="<="), **conditions)
    yield of(
        "guard.compile_mb", megabytes, "MB", goal=Goal(value=200, sense="<="),
        **conditions, statistic="peak resident set above that before",
    )  # fmt: skip


def _compiled(setup: Setup) -> dict[str, Any]:
    settings = setup.settings
    done = subprocess.run(  # noqa: S603 -- our own module
        [
            sys.executable,
            "-m",
            "elision.evaluation.benches.compiling",
            settings.model,
            settings.cache,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))
