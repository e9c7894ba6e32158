"""Against a real vLLM: what it offers, what leaves of it, how fast it stops, what a loop writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from elision.contract import Completion, Engine, Plan, Recipe, Request, Sampling, collect, in_order
from elision.errors import (
    ConfigError,
    ContextLengthError,
    NotFoundError,
    RequestError,
    UpstreamError,
)
from elision.guards.guard import Guard
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.looping import MOST_CANDIDATES, TokenLoop
from elision.middleware.engines.upstream.offers import Offers
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.laws import check_never_leaks
from elision.testing.tokenizers import byte_tokenizer

from .servers import KEY, N_CONTEXT, Server

pytestmark = [pytest.mark.vllm, pytest.mark.model]

QUESTION = "What is the capital of France?"
SECRET = "Paris"
STOPS_WITHIN_S = 0.25


def engine_for(server: Server, **how: Any) -> RemoteEngine:
    given = {"model": server.model, "key": KEY, "timeout_s": 30.0, **how}
    return RemoteEngine(f"{server.root}/v1", **given)


@asynccontextmanager
async def opened(server: Server, **how: Any) -> AsyncIterator[RemoteEngine]:
    engine = engine_for(server, **how)
    try:
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def looped(server: Server) -> AsyncIterator[TokenLoop]:
    async with opened(server, tokenizer=str(server.folder), settings=Settings()) as engine:
        loop = await engine.loop()
        assert loop is not None
        yield loop


def plan(*recipes: Recipe, question: str = QUESTION, **fields: Any) -> Plan:
    messages = ({"role": "user", "content": question},)
    sampling = Sampling(temperature=0.0)
    request = Request(**{"messages": messages, "sampling": sampling, "max_tokens": 32, **fields})
    return Plan(request=request, recipes=in_order(recipes), reuse=True, refusal="I cannot say.")


async def written(engine: Engine, wanted: Plan) -> Completion:
    return await collect(engine.stream(wanted))


# --- what it offers ------------------------------------------------------------------------------


async def test_a_probe_finds_exactly_what_it_offers(vllm: Server) -> None:
    async with opened(vllm) as engine:
        await engine.probe()
        found = engine.offers
    assert found == Offers(
        n_logprobs=20,
        n_text_logprobs=20,
        logit_bias=True,
        token_ids=True,
        prompt_ids=True,
        continues=True,
        bad_words=True,
        generate=True,
        completions=True,
        max_model_len=N_CONTEXT,
        server="vllm",
    )


async def test_the_pulled_tokenizer_is_its_own_and_another_is_refused(
    vllm: Server, tmp_path: Path
) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    async with opened(vllm, tokenizer=str(tmp_path), settings=Settings()) as engine:
        with pytest.raises(ConfigError, match="is not the tokenizer of"):
            await engine.loop()


# --- what leaves ---------------------------------------------------------------------------------


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    found = Register.open(tmp_path)
    yield found
    found.close()


async def test_a_target_is_written_around_by_going_back(vllm: Server, register: Register) -> None:
    request = plan().request
    async with opened(vllm, name="model") as engine:
        free = await written(engine, Plan(request=request))
        pipeline = Pipeline(engines={"model": engine}, register=register)
        register.add(ForgetTarget(title="the capital", phrases=(Phrase(text=SECRET),)))
        for profile in ("plain", "guarded"):
            done = await collect(pipeline.run(request, profile=profile))
            check_never_leaks(done, [SECRET])
            assert done.choices[0].finish != "content_filter"
            assert done.report["n_rewinds"] >= 1
        several = Request(
            messages=request.messages, n=3, max_tokens=24, logprobs=5,
            sampling=Sampling(temperature=1.2, seed=5),
        )  # fmt: skip
        check_never_leaks(await collect(pipeline.run(several)), [SECRET])
        await pipeline.aclose()
    assert SECRET in free.text


# --- how fast it stops ---------------------------------------------------------------------------


async def stops(vllm: Server, engine: Engine, wanted: Plan) -> float:
    """Return the seconds from the client's leaving until vLLM works on nothing any more."""
    async with aclosing(engine.stream(wanted)) as deltas:
        for _ in range(4):
            await anext(deltas)
        assert await asyncio.to_thread(vllm.n_running) >= 1
        left = time.monotonic()
    while await asyncio.to_thread(vllm.n_running):
        assert time.monotonic() - left < 5
    return time.monotonic() - left


async def test_leaving_stops_it_within_a_quarter_of_a_second(vllm: Server) -> None:
    story = plan(question="Tell me a long story about the sea.", max_tokens=1000)
    async with opened(vllm) as engine:
        took = [await stops(vllm, engine, story) for _ in range(3)]
    assert min(took) < STOPS_WITHIN_S


async def test_leaving_a_loop_leaves_nothing_running(vllm: Server) -> None:
    async with looped(vllm) as loop:
        async with aclosing(loop.stream(plan(max_tokens=1000))) as deltas:
            for _ in range(4):
                await anext(deltas)
        left = time.monotonic()
        while await asyncio.to_thread(vllm.n_running):
            assert time.monotonic() - left < 5
        assert time.monotonic() - left < 3  # what runs on takes half a minute


# --- what a loop writes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(smollm2_dir: Path) -> Iterator[LocalEngine]:
    """Return the same model here, in float32, knowing as many tokens per position as a loop."""
    model = CausalModel.load(smollm2_dir, name="few", dtype=torch.float32)

    def forget(_module: Any, _args: Any, out: Any) -> Any:
        known = out.logits.log_softmax(-1)
        best, ids = known.topk(MOST_CANDIDATES, dim=-1)
        out.logits = torch.full_like(known, -torch.inf).scatter(-1, ids, best)
        return out

    model.model.register_forward_hook(forget)
    engine = LocalEngine(model)
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def plans(smollm2_dir: Path) -> dict[str, Plan]:
    from transformers import AutoTokenizer

    lexicon = TokenizerLexicon.of(AutoTokenizer.from_pretrained(smollm2_dir), vocab_size=49152)
    target = ForgetTarget(title="x", phrases=(Phrase(text=SECRET), Phrase(text="the capital of")))
    guard = Guard.compile([target]).recipes(lexicon)
    return {
        "plain": plan(question="Why is the sky blue?"),
        "guarded": plan(*guard),
        "em-inf": plan(EntropyMinimisation(), Guidance(scale=1.5), question="Name three fruits."),
        "mti": plan(MinimalIntervention(tau=1.0), *guard),
    }


@pytest.mark.parametrize("name", ["plain", "guarded", "em-inf", "mti"])
async def test_a_loop_writes_what_the_same_model_writes_here(
    name: str, vllm: Server, few: LocalEngine, plans: dict[str, Plan]
) -> None:
    want = await written(few, plans[name])
    async with looped(vllm) as loop:
        got = await written(loop, plans[name])
    assert got.text == want.text
    assert got.usage.completion_tokens == want.usage.completion_tokens
    assert got.report["scores"] == "top 20"
    assert 0 <= got.report["missing_mass"] < 1
    assert SECRET not in got.text or name in ("plain", "em-inf")


async def test_four_loops_at_once_write_what_one_writes(
    vllm: Server, plans: dict[str, Plan]
) -> None:
    async with looped(vllm) as loop:
        alone = await written(loop, plans["guarded"])
        four = await asyncio.gather(*(written(loop, plans["guarded"]) for _ in range(4)))
    assert [done.text for done in four] == [alone.text] * 4


# --- errors --------------------------------------------------------------------------------------


async def test_errors_are_told_as_ours(vllm: Server) -> None:
    long = plan(question="word " * (N_CONTEXT + 50))
    async with opened(vllm, key="sk-wrong") as engine:
        with pytest.raises(UpstreamError, match="does not accept our key") as refused:
            await written(engine, plan())
    assert refused.value.upstream_status == 401
    async with opened(vllm, model="nobody") as engine:
        with pytest.raises(NotFoundError, match="has no model"):
            await written(engine, plan())
    async with opened(vllm) as engine:
        with pytest.raises(ContextLengthError):
            await written(engine, long)
    async with looped(vllm) as loop:
        with pytest.raises(ContextLengthError, match="takes 2048"):
            await written(loop, long)
    async with opened(vllm) as engine:
        await engine.probe()
        for ids in ([504] * N_CONTEXT, [504] * (N_CONTEXT + 50)):
            with pytest.raises(RequestError, match="refused the request"):
                await engine.next_scores(ids, 5)
