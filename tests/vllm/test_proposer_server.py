"""A real vLLM that drafts by our proposer: the whole chain acts, and no draft changes a text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elision.contract import Plan, Recipe, Request, Sampling, collect, in_order
from elision.guards.guard import Guard
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.interventions.penalties import FrequencyPresence

from .drafts import (
    N_TOKENS,
    ORDERS,
    QUESTIONS,
    RECYCLING,
    TARGET,
    ask,
    drafted,
    order,
    rendered,
    said,
    together,
)
from .servers import Server

pytestmark = [pytest.mark.vllm, pytest.mark.model]


@pytest.fixture(scope="module")
def local(smollm2_dir: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(CausalModel.load(smollm2_dir, name="m", dtype=torch.float32))
    yield engine
    asyncio.run(engine.aclose())


def recipes_of(engine: LocalEngine, one: Order) -> tuple[Recipe, ...]:
    assert isinstance(engine.lexicon, TokenizerLexicon)
    masks = Guard.compile([TARGET]).recipes(engine.lexicon) if one.guard else ()
    return in_order((*one.recipes, *masks))


async def own(engine: LocalEngine, prompt: list[int], one: Order, n_tokens: int) -> str:
    """Return what the local engine writes under the recipes of an order."""
    request = Request(
        kind="text",
        prompt=tuple(prompt),
        max_tokens=n_tokens,
        sampling=Sampling(temperature=0.0),
    )
    plan = Plan(request=request, recipes=recipes_of(engine, one))
    return (await collect(engine.stream(plan))).text


# --- the chain -----------------------------------------------------------------------------------


def test_a_banned_word_is_gone_and_is_no_alternative(proposing: Server) -> None:
    prompt = rendered(proposing, QUESTIONS[0])
    [free] = said(proposing, prompt, order())
    assert "Paris" in free.text
    for name in ("guarded", "guarded-mti", "guarded-recycling"):
        answer = ask(proposing, prompt, ORDERS[name], logprobs=5)
        assert answer.status == 200
        assert "Paris" not in answer.told
    [bare] = said(proposing, prompt, order())
    assert bare == free, "others are left alone"


@pytest.mark.parametrize("name", ["guarded", "em-inf"])
async def test_without_drafts_it_writes_what_the_local_engine_writes(
    name: str, proposing: Server, local: LocalEngine
) -> None:
    asks = [(rendered(proposing, question), ORDERS[name]) for question in QUESTIONS[:3]]
    for (prompt, one), [got] in zip(asks, together(proposing, asks), strict=True):
        assert got.text == await own(local, prompt, one, N_TOKENS)


async def test_mti_beside_masks_writes_what_the_local_engine_writes_from_the_second_token_on(
    proposing: Server, local: LocalEngine
) -> None:
    one = ORDERS["guarded-mti"]
    asks = [(rendered(proposing, question), one) for question in QUESTIONS[:3]]
    free = together(proposing, [(prompt, ORDERS["guarded"]) for prompt, _ in asks])
    got = together(proposing, asks)
    for (prompt, _), [said_here] in zip(asks, got, strict=True):
        first = said_here.ids[0]
        text = local.lexicon.bytes_of(first).decode() if local.lexicon else ""
        assert said_here.text == text + await own(local, [*prompt, first], one, N_TOKENS - 1)
    assert sum(one != other for one, other in zip(got, free, strict=True)) >= 2


def test_recycling_changes_no_token_cold_or_warm(proposing: Server) -> None:
    before = drafted(proposing)
    prompts = [rendered(proposing, question) for question in QUESTIONS[1:4]]
    for name in ("recycling", "guarded-recycling"):
        alone = replace(ORDERS[name], drafts="none")
        warm = replace(ORDERS[name], pool=f"a pool for {name}")
        want = together(proposing, [(prompt, alone) for prompt in prompts], max_tokens=40)
        for _ in range(2):
            asks = [(prompt, warm) for prompt in prompts]
            assert together(proposing, asks, max_tokens=40) == want
    gained = drafted(proposing) - before
    assert gained["accepted_tokens"] > 60, "the second time, most of it is known"


def test_what_was_said_in_one_pool_is_not_drafted_in_another(proposing: Server) -> None:
    prompt = rendered(proposing, QUESTIONS[1])
    said(proposing, prompt, order(drafts="recycle", pool="of one tenant"))
    steps = []
    for pool in ("of one tenant", "of another"):
        before = drafted(proposing)
        said(proposing, prompt, order(drafts="recycle", pool=pool))
        steps.append((drafted(proposing) - before)["accepted_tokens"])
    assert steps[0] > steps[1] + 5


def test_mixed_requests_side_by_side_are_each_as_alone(proposing: Server) -> None:
    asks = [
        (rendered(proposing, question), one)
        for one, question in zip(ORDERS.values(), 2 * QUESTIONS, strict=False)
    ]
    alone = [said(proposing, prompt, one) for prompt, one in asks]
    assert together(proposing, asks) == alone


@pytest.mark.parametrize(
    "recipe",
    [FrequencyPresence(frequency=0.5), LogitBias(bias={260: -4.0})],
    ids=["penalty", "bias"],
)
async def test_what_vllm_refuses_or_does_itself_an_order_does_in_our_chain(
    recipe: Recipe, proposing: Server, local: LocalEngine
) -> None:
    prompt = rendered(proposing, QUESTIONS[4])
    one = order(recipe, **RECYCLING)
    [got] = said(proposing, prompt, one)
    assert got.text == await own(local, prompt, one, N_TOKENS)
