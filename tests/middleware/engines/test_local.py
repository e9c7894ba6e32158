"""The local engine on tiny models: parity with generate, fairness, limits, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from elision.contract import (
    Completion,
    Context,
    Delta,
    Engine,
    Here,
    Plan,
    Recipe,
    Request,
    Sampling,
    Stage,
    Stateless,
    collect,
    in_order,
)
from elision.errors import BusyError, ContextLengthError, EngineError, RequestError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.profiles import sampling_recipes
from elision.testing.models import Architecture, tiny_model
from elision.testing.tokenizers import byte_tokenizer

PROMPT = tuple(b"Once upon a time")


def causal(architecture: Architecture = "llama", **options: Any) -> CausalModel:
    tokenizer = byte_tokenizer()
    model = tiny_model(architecture, vocab_size=len(tokenizer), **options)
    return CausalModel(model, tokenizer, name="tiny")


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(causal(), queue_limit=2, max_streams=8)
    yield engine
    await engine.aclose()


def plan(max_tokens: int | None = 12, *, recipes: tuple[Recipe, ...] = (), **fields: Any) -> Plan:
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    request = Request(
        kind="text",
        prompt=fields.pop("prompt", PROMPT),
        sampling=sampling,
        max_tokens=max_tokens,
        **fields,
    )
    return Plan(request=request, recipes=in_order((*sampling_recipes(sampling), *recipes)))


async def run(engine: Engine, plan: Plan) -> Completion:
    return await collect(engine.stream(plan))


# --- parity --------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "top_k": {"temperature": 1.0, "top_k": 7},
    "top_p": {"temperature": 1.3, "top_p": 0.8},
    "min_p": {"temperature": 1.0, "min_p": 0.1},
    "repetition": {"temperature": 1.0, "repetition_penalty": 1.3},
    "all": {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.1},
}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SETTINGS)
async def test_sampling_with_torchs_stream_equals_generate_token_for_token(
    architecture: Architecture, seed: int, name: str
) -> None:
    model, options = causal(architecture, seed=seed), SETTINGS[name]
    ids = torch.tensor([PROMPT])
    torch.manual_seed(seed)
    off = {"top_k": 0, "pad_token_id": 258}
    out = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=True,
        **{**off, **options},
    )  # fmt: skip
    expected = model.lexicon.text(out[0, len(PROMPT) :].tolist())

    engine = LocalEngine(model)
    sampling = {**options, "seed": seed, "rng": "torch"}
    done = await run(engine, plan(40, sampling=sampling))
    await engine.aclose()

    assert done.text == expected


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gemma3"])
async def test_greedy_equals_generate(architecture: Architecture) -> None:
    model = causal(architecture)
    ids = torch.tensor([PROMPT])
    out = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False,
        pad_token_id=258,
    )  # fmt: skip
    engine = LocalEngine(model)
    done = await run(engine, plan(60))
    await engine.aclose()
    assert done.text == model.lexicon.text(out[0, len(PROMPT) :].tolist())


async def test_a_prompt_longer_than_a_chunk_gives_the_same_reply_as_one_forward() -> None:
    model = causal(context=2048)
    prompt = tuple(bytes(i % 96 + 32 for i in range(2 * PREFILL_CHUNK + 17)))
    with torch.inference_mode():
        row = model.model(torch.tensor([prompt])).logits[0, -1]
    engine = LocalEngine(model)
    done = await run(engine, plan(1, prompt=prompt))
    await engine.aclose()
    assert done.text == model.lexicon.text([int(row.argmax())])


# --- what is asked for ---------------------------------------------------------------------------


async def test_usage_counts_prompt_and_reply(engine: LocalEngine) -> None:
    done = await run(engine, plan(5, n=3, sampling={"temperature": 1.0, "seed": 1}))
    assert done.usage.prompt_tokens == len(PROMPT)
    assert done.usage.completion_tokens == 15
    assert [c.finish for c in done.choices] == ["length"] * 3


async def test_choices_of_one_request_differ_and_each_repeats_by_its_seed(
    engine: LocalEngine,
) -> None:
    asked = plan(16, n=4, sampling={"temperature": 1.0, "seed": 5})
    first, again = await run(engine, asked), await run(engine, asked)
    assert len({c.text for c in first.choices}) == 4
    assert first.choices == again.choices


async def test_the_first_choice_does_not_depend_on_how_many_there_are(engine: LocalEngine) -> None:
    sampling = {"temperature": 1.0, "seed": 5}
    one = await run(engine, plan(16, sampling=sampling))
    four = await run(engine, plan(16, n=4, sampling=sampling))
    assert one.choices[0].text == four.choices[0].text


async def test_a_reply_streamed_beside_others_equals_the_reply_alone(engine: LocalEngine) -> None:
    plans = [plan(20, sampling={"temperature": 1.0, "seed": s}) for s in range(4)]
    alone = [await run(engine, p) for p in plans]
    gate = LocalEngine(causal(), queue_limit=8)
    together = await asyncio.gather(*(run(gate, p) for p in plans))
    await gate.aclose()
    assert [c.text for c in together] == [c.text for c in alone]


async def test_a_stop_text_ends_the_reply_across_token_boundaries(engine: LocalEngine) -> None:
    whole = (await run(engine, plan(40))).text
    stop = whole[10:13]
    done = await run(engine, plan(40, stop=(stop,)))
    assert done.text == whole[: whole.index(stop)]
    assert done.choices[0].finish == "stop"


async def test_the_models_end_token_ends_the_reply_and_is_not_written() -> None:
    model = causal()
    engine = LocalEngine(model)
    whole = (await run(engine, plan(20))).text
    model.eos = frozenset({whole.encode("utf-8", "replace")[6]})
    done = await run(engine, plan(20))
    await engine.aclose()
    assert done.choices[0].finish == "stop"
    assert whole.startswith(done.text)
    assert len(done.text) < len(whole)


async def test_log_probabilities_are_those_of_the_raw_row_when_nothing_acts() -> None:
    model = causal()
    engine = LocalEngine(model)
    done = await run(engine, plan(1, logprobs=3))
    await engine.aclose()
    with torch.inference_mode():
        row = model.model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    best, ids = row.topk(3)
    (entry,) = done.choices[0].logprobs
    assert [a.data for a in entry.top] == [model.lexicon.bytes_of(int(i)) for i in ids]
    assert [a.logprob for a in entry.top] == pytest.approx(best.tolist(), abs=1e-5)
    assert entry.logprob == pytest.approx(float(best[0]), abs=1e-5)


async def test_an_echo_begins_every_choice(engine: LocalEngine) -> None:
    done = await run(engine, plan(3, n=2, echo=True, prompt="abc"))
    assert all(c.text.startswith("abc") for c in done.choices)


@dataclass(frozen=True, kw_only=True)
class Only(Stateless):
    """Allows a set of tokens, possibly none."""

    allowed: tuple[int, ...] = ()
    stage: ClassVar[Stage] = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        masked = torch.full_like(logits, -torch.inf)
        masked[list(self.allowed)] = logits[list(self.allowed)]
        here.note("only", 1)
        return masked


async def test_a_dead_end_ends_the_choice_for_the_guard(engine: LocalEngine) -> None:
    dead = plan(5, recipes=(Only(),))
    done = await run(engine, Plan(request=dead.request, recipes=dead.recipes, refusal="No."))
    assert done.choices[0].finish == "content_filter"
    assert done.text == "No."


async def test_banned_tokens_are_not_among_the_alternatives(engine: LocalEngine) -> None:
    done = await run(engine, plan(4, logprobs=5, recipes=(Only(allowed=(97, 98)),)))
    for entry in done.choices[0].logprobs:
        assert {a.token for a in entry.top} <= {"a", "b"}
    assert set(done.text) <= {"a", "b"}
    assert done.report["notes"]["only"] == 4


# --- together ------------------------------------------------------------------------------------


async def test_eight_streams_interleave() -> None:
    engine = LocalEngine(causal(), max_streams=8)
    order: list[int] = []
    letters = Only(allowed=tuple(range(97, 123)))

    async def follow(stream: int) -> None:
        asked = plan(64, sampling={"temperature": 1.0, "seed": stream}, recipes=(letters,))
        async for delta in engine.stream(asked):
            if delta.text:
                order.append(stream)

    await asyncio.gather(*map(follow, range(8)))
    await engine.aclose()
    assert len(order) == 8 * 64
    for at in range(64, 7 * 64, 16):
        assert len(set(order[at : at + 16])) >= 7, "some stream waited for another"


async def test_one_request_over_the_queue_limit_is_refused() -> None:
    engine = LocalEngine(causal(context=4096), max_streams=1, queue_limit=1)
    async with aclosing(engine.stream(plan(4000))) as running:
        await anext(running)
        waiting = asyncio.create_task(run(engine, plan(1)))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError) as refused:
            await run(engine, plan(1))
        assert refused.value.status == 429
        assert refused.value.retry_after_s > 0
    assert (await waiting).usage.completion_tokens == 1
    await engine.aclose()


async def test_an_abandoned_stream_frees_its_cache_within_a_step() -> None:
    engine = LocalEngine(causal(context=4096))
    stream = engine.stream(plan(4000))
    await anext(stream)
    assert engine.stats()["active_sequences"] == 1
    assert engine.stats()["cached_tokens"] > 0
    await stream.aclose()
    steps = engine.stats()["steps"]
    await asyncio.sleep(0.5)
    assert engine.stats()["active_sequences"] == 0
    assert engine.stats()["cached_tokens"] == 0
    assert engine.stats()["steps"] <= steps + 1
    await engine.aclose()


async def test_a_deadline_ends_the_reply_with_what_there_is() -> None:
    engine = LocalEngine(causal(context=8192))
    start = time.monotonic()
    done = await run(engine, plan(8000, timeout_s=0.3))
    await engine.aclose()
    assert time.monotonic() - start < 3
    assert done.choices[0].finish == "length"
    assert 0 < done.usage.completion_tokens < 8000


async def test_the_next_request_sees_the_engine_as_fresh() -> None:
    used, fresh = LocalEngine(causal()), LocalEngine(causal())
    await run(used, plan(30, n=2, sampling={"temperature": 1.0}))
    stream = used.stream(plan(30))
    await anext(stream)
    await stream.aclose()
    replies = [await run(engine, plan(20, logprobs=2)) for engine in (used, fresh)]
    assert replies[0].choices == replies[1].choices
    for engine in (used, fresh):
        await engine.aclose()


# --- what goes wrong -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Breaks(Stateless):
    """Breaks at the third token, with the prompt in its message."""

    stage: ClassVar[Stage] = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        if here.position == 2:
            raise RuntimeError("secret prompt")
        return logits


async def _drain(deltas: AsyncIterator[Delta], *, into: list[Delta]) -> None:
    async for delta in deltas:
        into.append(delta)


async def test_a_recipe_that_breaks_ends_its_request_alone_and_says_nothing(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    broken = engine.stream(plan(10, recipes=(Breaks(),)))
    beside = asyncio.create_task(run(engine, plan(20)))
    got: list[Delta] = []
    with pytest.raises(EngineError) as failure:
        await _drain(broken, into=got)
    assert len(got) <= 2
    assert "secret" not in str(failure.value)
    assert "secret" not in caplog.text
    assert (await beside).usage.completion_tokens == 20


async def test_a_prompt_that_does_not_fit_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(ContextLengthError, match="takes 512 in all"):
        await run(engine, plan(1, prompt=(1,) * 600))
    with pytest.raises(ContextLengthError):
        await run(engine, plan(510))


async def test_token_ids_outside_the_vocabulary_are_refused(engine: LocalEngine) -> None:
    with pytest.raises(RequestError, match="outside the vocabulary"):
        await run(engine, plan(1, prompt=(1, 10_000)))


async def test_a_chat_without_a_template_is_refused() -> None:
    model = causal()
    model.tokenizer.chat_template = None
    engine = LocalEngine(model)
    request = Request(messages=({"role": "user", "content": "hi"},))
    with pytest.raises(RequestError, match="no chat template"):
        await run(engine, Plan(request=request))
    await engine.aclose()


async def test_a_closed_engine_refuses_and_ends_what_runs() -> None:
    engine = LocalEngine(causal(context=4096))
    stream = engine.stream(plan(4000))
    await anext(stream)
    await engine.aclose()
    with pytest.raises(EngineError):
        await _drain(stream, into=[])
    with pytest.raises(EngineError, match="closed"):
        await run(engine, plan(1))


async def test_a_session_sees_the_prefill_but_no_template_text() -> None:
    seen: list[Context] = []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Stateless):
        stage: ClassVar[Stage] = Stage.SIGNAL

        def begin(self, context: Context) -> Looks:
            seen.append(context)
            return self

        def adjust(self, logits: Tensor, here: Here) -> Tensor:
            return logits

    engine = LocalEngine(causal())
    messages = (
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "It was"},
    )
    request = Request(
        messages=messages, continue_final=True, max_tokens=1, sampling=Sampling(temperature=0)
    )
    await run(engine, Plan(request=request, recipes=(Looks(),)))
    await engine.aclose()
    assert seen[0].before == "It was"
    assert seen[0].user_text == "who?"
    assert bytes(t for t in seen[0].prompt_ids if t < 256).endswith(b"It was")
