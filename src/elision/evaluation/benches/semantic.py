"""What the semantic layer costs: tokens per second gate closed and open, and per completed word."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import torch

from elision.contract import Context, Plan, Recipe, Request, Sampling, Session, collect
from elision.evaluation.bench import Setup
from elision.evaluation.benches.encoder import ENCODER, bench_encoder
from elision.evaluation.benches.model import PROMPTS, bench_model
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.guards.gate.assessment import CLOSED, Assessment, Level, Suspect
from elision.guards.semantic.semantics import Semantics
from elision.guards.semantic.watch import SemanticWatch
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine

N_TOKENS = 64
N_TARGETS = 1_000
_SYLLABLES = "ka lo mi ner tus vel dro pan shi qua bel fir gon hex jul".split()
SUSPECTS = ("m0", "m1", "m2")
OPEN = Assessment(level=Level.OPEN, suspects=tuple(Suspect(s, 0.9, named=True) for s in SUSPECTS))
WATCH = Assessment(level=Level.WATCH, suspects=OPEN.suspects)
_GOALS = {"closed": Goal(value=0.97, sense=">="), "watch": None, "open": None}


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of the semantic layer."""
    torch.set_num_threads(1)
    model, semantics = bench_model(setup), _semantics(setup)
    recipes = {
        level: SemanticWatch(semantics=semantics, assessment=assessment)
        for level, assessment in (("closed", CLOSED), ("watch", WATCH), ("open", OPEN))
    }
    ratios = asyncio.run(_ratios(model, recipes, setup))
    for level, found in ratios.items():
        yield of(
            f"semantic.ratio_{level}", found, "x", goal=_GOALS[level], model=model.name,
            encoder=ENCODER, dtype="float32", threads=1, targets=N_TARGETS,
            suspects=len(SUSPECTS), action="observe",
            tokens=f"{setup.repeats(N_TOKENS, 32)} greedy",
            statistic="tokens/s with the layer over without, runs interleaved",
        )  # fmt: skip
    yield from _per_word(model, recipes["open"], setup)


def _semantics(setup: Setup) -> Semantics:
    """Return made-up targets that only observe: all is compared, and the text stays the same."""
    phrases = [phrase.text for target in made_up(N_TARGETS) for phrase in target.phrases]
    targets = (
        ForgetTarget(
            id=f"m{n}",
            title="made up",
            phrases=(Phrase(text=text),),
            action="observe",
            answers=(f"The keeper of {text} was born in the year {1100 + n % 400}.",),
        )
        for n, text in enumerate(phrases)
    )
    return Semantics.compile(targets, bench_encoder(setup), tenant="bench")


# --- in a running engine -------------------------------------------------------------------------


async def _ratios(
    model: CausalModel, recipes: dict[str, SemanticWatch], setup: Setup
) -> dict[str, list[float]]:
    engine, n_tokens = LocalEngine(model, n_threads=1), setup.repeats(N_TOKENS, 32)
    ratios: dict[str, list[float]] = {level: [] for level in recipes}
    try:
        for recipe in (None, *recipes.values()):
            await _rate(engine, PROMPTS[0], recipe, 4)
        for turn, prompt in enumerate(PROMPTS[: setup.repeats(6, 2)]):
            for level, recipe in recipes.items():
                order = (None, recipe) if turn % 2 else (recipe, None)
                rate = {bool(r): await _rate(engine, prompt, r, n_tokens) for r in order}
                ratios[level].append(rate[True] / rate[False])
    finally:
        await engine.aclose()
    return ratios


async def _rate(engine: LocalEngine, prompt: str, recipe: Recipe | None, n_tokens: int) -> float:
    request = Request(
        messages=({"role": "user", "content": prompt},),
        sampling=Sampling(temperature=0.0),
        max_tokens=n_tokens,
    )
    plan = Plan(request=request, recipes=(recipe,) if recipe else (), tenant="bench")
    start = time.perf_counter()
    done = await collect(engine.stream(plan))
    return done.usage.completion_tokens / (time.perf_counter() - start)


# --- per word ------------------------------------------------------------------------------------


def _per_word(model: CausalModel, recipe: SemanticWatch, setup: Setup) -> Iterator[Figure]:
    """Time `advance` over made-up words: the first time each is new to the encoder, then known."""
    draw = random.Random(0)  # noqa: S311 -- test data, not a secret
    made = ["".join(draw.choices(_SYLLABLES, k=3)) for _ in range(setup.repeats(200, 60))]
    for state in ("new", "known"):
        took = _timed(model, recipe, "".join(f" {word}" for word in made))
        conditions: dict[str, Any] = {
            "encoder": ENCODER, "threads": 1, "suspects": len(SUSPECTS), "words": state,
        }  # fmt: skip
        yield of(f"semantic.us_per_word_{state}", took, "µs", **conditions, statistic="p50")
        yield of(
            f"semantic.us_per_word_{state}.p99", took, "µs",
            pick=lambda samples: percentile(samples, 0.99), **conditions,
            statistic="p99: the words that fill a sentence, which is then judged too",
        )  # fmt: skip


def _timed(model: CausalModel, recipe: SemanticWatch, text: str) -> list[float]:
    """Return the microseconds of each `advance` that completes a word."""
    tokens = model.tokenizer.encode(text, add_special_tokens=False)
    session: Session = recipe.begin(Context(lexicon=model.lexicon, vocab_size=model.vocab_size))
    took = []
    for token in tokens:
        start = time.perf_counter_ns()
        session = session.advance(token)
        spent = (time.perf_counter_ns() - start) / 1e3
        if (model.lexicon.texts[token] or "").startswith(" "):
            took.append(spent)
    return took[1:]
