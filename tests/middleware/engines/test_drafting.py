"""Drafting in the running engine: the same replies, fewer forwards, nothing left behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from elision.contract import Completion, Here, Plan, Recipe, Stage, Stateless, collect, in_order
from elision.errors import EngineError
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions import INTERVENTIONS
from elision.middleware.profiles import sampling_recipes
from elision.testing.broken import Breaking
from elision.testing.laws import check_drafted_equals_plain
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model
from elision.testing.tokenizers import byte_tokenizer

from .test_rewind import Every, back_to, plan

SAMPLED = {"temperature": 0.8, "seed": 3}
lengths = pytest.mark.parametrize("length", [16, pytest.param(48, marks=pytest.mark.slow)])
"""Of the replies to compare, in tokens."""


def causal(architecture: Architecture = "llama", **options: Any) -> CausalModel:
    tokenizer = byte_tokenizer()
    model = tiny_model(architecture, vocab_size=len(tokenizer), **options)
    return CausalModel(model, tokenizer, name="tiny")


def assisted() -> LocalEngine:
    """Return an engine that every registered intervention can be run on."""
    tokenizer = byte_tokenizer()
    names = ("amateur", "before", "after")
    models = {
        name: tiny_model(vocab_size=len(tokenizer), seed=seed, n_layers=1)
        for seed, name in enumerate(names, 5)
    }
    assistants = {n: CausalModel(model, tokenizer, name=n) for n, model in models.items()}
    return LocalEngine(causal(), assistants=assistants)


def free(*recipes: Recipe, **fields: Any) -> Plan:
    """Return a plan without the mask that lets only letters through."""
    wanted = plan(max_tokens=fields.pop("max_tokens", 48), **fields)
    kept = (*sampling_recipes(wanted.request.sampling), *recipes)
    return replace(wanted, recipes=in_order(kept))


# --- law 3 ---------------------------------------------------------------------------------------


@lengths
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_drafted_reply_is_the_plain_reply_on_every_tiny_model(
    architecture: Architecture, length: int
) -> None:
    check_drafted_equals_plain(
        lambda: LocalEngine(causal(architecture)),
        free(max_tokens=length, logprobs=2),
        free(max_tokens=length, sampling=SAMPLED),
        free(max_tokens=length, sampling={**SAMPLED, "rng": "torch"}),
        free(max_tokens=length, sampling={**SAMPLED, "top_p": 0.9, "repetition_penalty": 1.2}, n=2),
        free(max_tokens=1),
    )


@lengths
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_a_drafted_reply_is_the_plain_reply_under_every_intervention(
    name: str, length: int
) -> None:
    recipe = INTERVENTIONS[name]()
    check_drafted_equals_plain(
        assisted,
        free(recipe, max_tokens=length),
        free(recipe, max_tokens=length, sampling=SAMPLED, logprobs=1),
    )


def test_a_reply_that_goes_back_goes_back_alike() -> None:
    again = Every(lambda t: len(t) in {9, 14} and t[4] % 2 == 0, back_to(4))
    start = Every(lambda t: len(t) == 3 and t[0] % 2 == 1, back_to(0))
    end = Every(lambda t: len(t) > 2 and t[-1] % 3 == 0, back_to(1), at_end=True)
    check_drafted_equals_plain(
        lambda: LocalEngine(causal()),
        plan(again, max_tokens=20),
        plan(start, again, max_tokens=20, sampling=SAMPLED),
        plan(end, max_tokens=20, stop=("q",)),
    )


@dataclass(frozen=True, kw_only=True)
class DeadEnds(Stateless):
    """Leave nothing to choose from at one position, as long as the reply has not gone back."""

    at: int
    stage: Stage = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits - float("inf") if here.position == self.at else logits


def test_a_dead_end_within_a_draft_is_the_plain_dead_end() -> None:
    check_drafted_equals_plain(
        lambda: LocalEngine(causal()),
        *(plan(DeadEnds(at=at), max_tokens=20) for at in (5, 6, 7)),
    )


# --- what it is for ------------------------------------------------------------------------------


async def decode(engine: LocalEngine, plan: Plan, **changes: Any) -> Completion:
    return await collect(engine.stream(replace(plan, **changes)))


async def test_a_reply_seen_before_takes_fewer_forwards() -> None:
    engine, wanted = LocalEngine(causal()), free(max_tokens=60)
    try:
        await decode(engine, wanted, speculation="force")
        done = await decode(engine, wanted, speculation="force")
    finally:
        await engine.aclose()
    counts = done.report["speculation"]
    assert counts["tokens"] == 60
    assert counts["steps"] < 40
    assert counts["steps"] + counts["accepted"] >= 59


async def test_a_plan_that_drafts_nothing_reports_no_drafts() -> None:
    engine = LocalEngine(causal())
    done = await decode(engine, free())
    await engine.aclose()
    assert "speculation" not in done.report


async def test_eight_requests_share_their_forwards() -> None:
    engine, wanted = LocalEngine(causal(), max_streams=8), free(max_tokens=40)
    try:
        alone = await decode(engine, wanted)
        before = engine.stats()["forwards"]
        many = [decode(engine, wanted, reuse=True) for _ in range(8)]
        texts = {done.text for done in await asyncio.gather(*many)}
        n_forwards = engine.stats()["forwards"] - before
    finally:
        await engine.aclose()
    assert texts == {alone.text}
    assert n_forwards < 4 * 40  # eight apart would take 8 * 39


# --- trouble -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Breaks(Stateless):
    stage: Stage = Stage.SIGNAL

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        if here.position == 5:
            raise RuntimeError("marmalade")
        return logits


async def test_a_recipe_that_breaks_in_a_shared_forward_ends_its_request_alone() -> None:
    engine, wanted = LocalEngine(causal()), free(max_tokens=30)
    try:
        plain = await decode(engine, wanted)
        plans = [wanted, free(Breaks(), max_tokens=30), wanted]
        jobs = (decode(engine, p, reuse=True, speculation="force") for p in plans)
        first, broken, last = await asyncio.gather(*jobs, return_exceptions=True)
    finally:
        await engine.aclose()
    assert isinstance(broken, EngineError)
    assert "marmalade" not in str(broken)
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert first.text == last.text == plain.text


async def test_a_model_that_breaks_on_one_sequence_serves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from elision.middleware.engines import round as module

    engine, wanted = LocalEngine(causal()), free(max_tokens=30)
    score = module.score_trees

    def cautious(model: Any, segments: Any) -> Any:
        if any(segment.n_past == 27 for segment in segments):
            raise RuntimeError("out of something")
        return score(model, segments)

    try:
        plain = await decode(engine, wanted)
        monkeypatch.setattr(module, "score_trees", cautious)
        short = replace(wanted, request=replace(wanted.request, max_tokens=8))
        jobs = (decode(engine, p, reuse=True) for p in (wanted, short))
        broken, done = await asyncio.gather(*jobs, return_exceptions=True)
    finally:
        await engine.aclose()
    assert isinstance(broken, EngineError)
    assert isinstance(done, Completion)
    assert plain.text.startswith(done.text)


async def test_a_reply_that_cannot_be_kept_ends_alone_and_the_engine_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from elision.middleware.engines.station import Station

    def full(self: Station, sequence: Any, generation: int) -> None:
        raise MemoryError("marmalade")

    engine, wanted = LocalEngine(causal()), free(max_tokens=5)
    try:
        plain = await decode(engine, wanted)
        with monkeypatch.context() as broken:
            broken.setattr(Station, "keep", full)
            with pytest.raises(EngineError, match="MemoryError"):
                await decode(engine, wanted)
        assert (await decode(engine, wanted)).text == plain.text
    finally:
        await engine.aclose()


@pytest.mark.parametrize("where", ["held", "verdict", "adjust"])
async def test_a_choice_that_breaks_at_its_first_token_is_not_written_on(where: Any) -> None:
    engine, recipe = LocalEngine(causal()), Breaking(where=where, after=0)
    left: list[str] = []

    async def read() -> None:
        async for delta in engine.stream(free(recipe, max_tokens=2)):
            left.append(delta.text)

    try:
        with pytest.raises(EngineError):
            await read()
    finally:
        await engine.aclose()
    assert "".join(left) == ""


async def test_a_drafter_that_breaks_ends_its_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from elision.middleware.speculation.recycling import Recycler

    def learn(self: Recycler, *args: Any) -> None:
        raise ZeroDivisionError("marmalade")

    monkeypatch.setattr(Recycler, "learn", learn)
    engine, wanted = LocalEngine(causal()), free(max_tokens=30)
    try:
        modes = ("force", "off")
        jobs = (decode(engine, wanted, reuse=True, speculation=mode) for mode in modes)
        broken, done = await asyncio.gather(*jobs, return_exceptions=True)
        plain = await decode(engine, wanted)
    finally:
        await engine.aclose()
    assert isinstance(broken, EngineError)
    assert isinstance(done, Completion)
    assert done.text == plain.text
