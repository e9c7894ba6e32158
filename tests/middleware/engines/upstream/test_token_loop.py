"""The token loop: what the local engine writes over a model that knows k tokens per position."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from elision.contract import (
    Capability,
    Completion,
    Context,
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
from elision.errors import (
    CapabilityError,
    ConfigError,
    EngineError,
    RequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from elision.guards.guard import Guard
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.asking import Asker, Question, Ticket
from elision.middleware.engines.upstream.looping import TokenLoop
from elision.middleware.engines.upstream.ranking import read_ranking
from elision.middleware.engines.upstream.token_model import UpstreamModel
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.profiles import sampling_recipes
from elision.middleware.speculation.base import NOTHING
from elision.settings import Settings
from elision.testing.laws import check_never_leaks
from elision.testing.script import FactTable
from elision.testing.scripted import ScriptedEngine, ScriptedModel
from elision.testing.tokenizers import byte_lexicon, byte_tokenizer, word_tokenizer
from elision.testing.upstream import ScriptedUpstream
from elision.testing.waiting import awaited_s

SECRET = "Marguerite Delacroix"
FACTS = {"painter": f"It was {SECRET}, of Lyon.", "weather": "It rains in Lyon, märchenhaft."}
K = 20
SEEDED = {"temperature": 1.3, "seed": 3}
SILENT_S = 60.0


class Forgetful(ScriptedModel):
    """Knows the log-probabilities of the K likeliest tokens of each position, and no others."""

    def forward(self, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        out = super().forward(*args, **kwargs)
        assert out.logits is not None
        known = out.logits.log_softmax(-1)
        best, ids = known.topk(K, dim=-1)
        out.logits = torch.full_like(known, -torch.inf).scatter(-1, ids, best)
        return out


def forgetful() -> LocalEngine:
    """Return the oracle: no upstream, no wire."""
    tokenizer = byte_tokenizer()
    model = Forgetful(FactTable(facts=FACTS), tokenizer)
    return LocalEngine(CausalModel(model, tokenizer, name="oracle"))


@dataclass(frozen=True)
class Nothing(Stateless):
    """Bans every token behind the third."""

    stage = Stage.HARD_MASK
    rank = 0

    def begin(self, context: Context) -> Self:
        return self

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits if here.position < 3 else torch.full_like(logits, -torch.inf)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the upstream's tokenizer, and nothing else."""
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(path)
    return path


def engine_for(upstream: ScriptedUpstream, folder: Path | str | None, **how: Any) -> RemoteEngine:
    return RemoteEngine(
        upstream.url,
        model="scripted",
        tokenizer=None if folder is None else str(folder),
        settings=Settings(),
        **how,
    )


@asynccontextmanager
async def looped(
    folder: Path,
) -> AsyncIterator[tuple[LocalEngine, ScriptedUpstream]]:
    """Lend a loop over a scripted upstream."""
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, folder)
        try:
            loop = await engine.loop()
            assert isinstance(loop, TokenLoop)
            upstream.seen.clear()
            yield loop, upstream
        finally:
            await engine.aclose()


def plan(*recipes: Recipe, question: str = "Who was the painter?", **fields: Any) -> Plan:
    sampling = Sampling(**fields.pop("sampling", {"temperature": 0.0}))
    messages = ({"role": "user", "content": question},)
    request = Request(**{"messages": messages, "max_tokens": 40, "sampling": sampling, **fields})
    chain = in_order((*sampling_recipes(sampling), *recipes))
    return Plan(request=request, recipes=chain, reuse=True, refusal="I cannot say.")


@cache
def guard(action: Any = "restrict") -> tuple[Recipe, ...]:
    target = ForgetTarget(title="x", phrases=(Phrase(text=SECRET),), action=action)
    return Guard.compile([target]).recipes(byte_lexicon())


PLANS: dict[str, Callable[[], Plan]] = {
    "greedy": plan,
    "drawn": lambda: plan(sampling=SEEDED),
    "nucleus": lambda: plan(sampling={**SEEDED, "top_p": 0.9, "repetition_penalty": 1.2}),
    "two": lambda: plan(sampling=SEEDED, n=2, logprobs=3),
    "bias": lambda: plan(sampling={"temperature": 0.0, "logit_bias": {ord("M"): -100.0}}),
    "masked": lambda: plan(*guard(), sampling=SEEDED, logprobs=2),
    "taken-back": lambda: plan(*guard("redact")),
    "em-inf": lambda: plan(EntropyMinimisation(), sampling={"temperature": 0.1, "seed": 1}),
    "mti": lambda: plan(MinimalIntervention(tau=0.3, negative=(7, 8)), n=2, sampling=SEEDED),
    "cfg": lambda: plan(Guidance(scale=1.5), n=2, sampling=SEEDED),
    "all": lambda: plan(*guard(), EntropyMinimisation(), Guidance(scale=1.5), sampling=SEEDED),
    "umlaut": lambda: plan(question="What is the weather?"),
}


# --- the same as a model that knows as much ------------------------------------------------------


async def written(engine: LocalEngine, wanted: Plan) -> Completion:
    return await collect(engine.stream(wanted))


@pytest.mark.parametrize("name", PLANS)
async def test_a_loop_writes_what_a_model_that_knows_k_tokens_writes(
    name: str, folder: Path
) -> None:
    oracle, wanted = forgetful(), PLANS[name]()
    want = await written(oracle, wanted)
    await oracle.aclose()
    async with looped(folder) as (loop, _):
        got = await written(loop, wanted)
    assert got.choices == want.choices
    assert got.usage == want.usage
    assert got.report["notes"] == want.report["notes"]


async def test_requests_that_are_decoded_together_get_what_they_get_alone(folder: Path) -> None:
    some = [PLANS[name] for name in ("masked", "mti", "cfg", "umlaut")]
    async with looped(folder) as (loop, _):
        alone = [await written(loop, make()) for make in some]
        together = await asyncio.gather(*(written(loop, make()) for make in some))
    assert [done.choices for done in together] == [done.choices for done in alone]


@pytest.mark.parametrize("action", ["restrict", "refuse", "redact"])
async def test_a_phrase_never_leaves(action: str, folder: Path) -> None:
    async with looped(folder) as (loop, _):
        free = await written(loop, plan())
        for seed in range(3):
            wanted = plan(*guard(action), sampling={**SEEDED, "seed": seed}, logprobs=5, n=2)
            check_never_leaks(await written(loop, wanted), [SECRET])
    assert SECRET in free.text


async def test_where_all_that_is_known_is_banned_it_refuses(folder: Path) -> None:
    async with looped(folder) as (loop, _):
        done = await written(loop, plan(Nothing()))
    assert done.choices[0].finish == "content_filter"
    assert done.text == FACTS["painter"][:3]


async def test_a_prompt_may_be_token_ids_and_a_reply_may_be_begun(folder: Path) -> None:
    ids = tuple(b"painter:")
    begun = (
        {"role": "user", "content": "Who was the painter?"},
        {"role": "assistant", "content": "It was Marg"},
    )
    async with looped(folder) as (loop, upstream):
        raw = await written(loop, plan(kind="text", prompt=ids, messages=()))
        told = upstream.bodies[0]["token_ids"]
        rest = await written(loop, plan(messages=begun, continue_final=True))
    assert (told, raw.text) == ([*ids], FACTS["painter"][: len(raw.text)])
    assert rest.text.startswith("uerite")


async def test_the_report_tells_what_was_known_and_what_was_not(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        done = await written(loop, plan(max_tokens=5))
        bodies = upstream.bodies
    oracle = ScriptedEngine(FACTS)
    missing = oracle.borrow(lambda model: max(_missing(model, body) for body in bodies)).result()
    await oracle.aclose()
    assert done.report["scores"] == "top 20"
    assert done.report["missing_mass"] == pytest.approx(missing, abs=1e-4)
    assert done.report["upstream_calls"] == len(bodies) == 5
    assert "dtype" not in done.report
    assert 0 < missing < 1


def _missing(model: CausalModel, body: dict[str, Any]) -> float:
    row = model.score(tuple(body["token_ids"]), model.new_cache()).softmax(-1)
    return 1 - float(row.sort(descending=True).values[:K].sum())


async def test_a_share_of_hesitant_positions_is_measured_once(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        await written(loop, plan(MinimalIntervention(share=0.1), max_tokens=2))
        first = len(upstream.bodies)
        await written(loop, plan(MinimalIntervention(share=0.1), max_tokens=2))
        second = len(upstream.bodies) - first
    assert first > 60
    assert second < 10


def test_rows_of_several_sequences_are_those_of_each_alone() -> None:
    known = ScriptedEngine(FACTS)
    asker = Asker(lambda ids, k: _told(known, ids, k), k=K)
    model = UpstreamModel(asker, byte_tokenizer(), name="x", n_context=4096)
    prompts = [tuple(b"painter: It"), tuple(b"weather"), tuple(b"nothing of the sort")]
    caches = [model.new_cache() for _ in prompts]
    for prompt, held in zip(prompts, caches, strict=True):
        model.score(prompt[:-1], held)
    together = score_trees(
        model.model,
        [
            Segment(prompt[-1:], NOTHING, held, len(prompt) - 1)
            for prompt, held in zip(prompts, caches, strict=True)
        ],
    )
    alone = [model.rows(prompt, model.new_cache(), len(prompt)) for prompt in prompts]
    asker.close()
    asker.join()
    for row, rows, prompt in zip(together, alone, prompts, strict=True):
        assert torch.equal(row[0], rows[-1])
        assert len(rows) == len(prompt)
    assert int(together[0][0].isfinite().sum()) == K


async def _told(engine: ScriptedEngine, ids: Any, k: int) -> list[tuple[int, float]]:
    def row(model: CausalModel) -> Tensor:
        return model.score(tuple(ids), model.new_cache()).log_softmax(-1)

    best, found = (await asyncio.wrap_future(engine.borrow(row))).topk(k)
    return list(zip(found.tolist(), best.tolist(), strict=True))


# --- side by side, called off, in time -----------------------------------------------------------


async def most_open(upstream: ScriptedUpstream, work: asyncio.Future[Any]) -> int:
    most = 0
    while not work.done():
        most = max(most, upstream.n_open)
        await asyncio.sleep(0.002)
    return most


async def test_rows_of_one_round_are_asked_for_side_by_side(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        upstream.delay_s = 0.05
        wanted = plan(Guidance(scale=1.5), n=3, max_tokens=4, sampling=SEEDED)
        work = asyncio.ensure_future(written(loop, wanted))
        most = await most_open(upstream, work)
    assert most == 6
    assert work.result().report["upstream_calls"] == len(upstream.bodies)


async def test_closing_a_stream_calls_off_what_is_being_asked(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        stream = loop.stream(plan())
        await anext(stream)
        upstream.delay_s = SILENT_S
        await awaited_s(lambda: upstream.n_open == 1)
        await stream.aclose()
        assert await awaited_s(lambda: upstream.n_open == 0) < 0.25
        upstream.delay_s = 0.0
        assert (await written(loop, plan())).text == FACTS["painter"]


async def test_who_leaves_takes_nobody_with_him(folder: Path) -> None:
    slow = {"now": False}

    def fault(body: Any) -> str | None:
        is_other = bytes(i for i in body["token_ids"] if i < 256).find(b"weather") >= 0
        return "silent" if slow["now"] and is_other else None

    async with looped(folder) as (loop, upstream):
        upstream.fault = fault
        leaving = loop.stream(plan(question="What is the weather?"))
        await anext(leaving)
        slow["now"] = True
        staying = asyncio.ensure_future(written(loop, plan()))
        await awaited_s(lambda: upstream.n_open >= 1)
        await asyncio.sleep(0.05)
        assert not staying.done()
        await leaving.aclose()
        assert (await asyncio.wait_for(staying, 5)).text == FACTS["painter"]


async def test_a_deadline_calls_off_what_is_being_asked(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        upstream.delay_s = SILENT_S
        begun = time.monotonic()
        with pytest.raises(UpstreamTimeoutError, match="deadline"):
            await written(loop, plan(timeout_s=0.2))
        assert time.monotonic() - begun < 1
        await awaited_s(lambda: upstream.n_open == 0)


async def test_a_request_that_fails_fails_alone_and_nothing_is_asked_for_twice(
    folder: Path,
) -> None:
    def fault(body: Any) -> str | None:
        return "400" if bytes(i for i in body["token_ids"][-8:] if i < 256) == b"in Lyon," else None

    async with looped(folder) as (loop, upstream):
        upstream.fault = fault
        failed, *done = await asyncio.gather(
            written(loop, plan(question="What is the weather?")),
            written(loop, plan()),
            written(loop, plan(question="Is it true that there was a painter?")),
            return_exceptions=True,
        )
        asked = [tuple(body["token_ids"]) for body in upstream.bodies]
    assert isinstance(failed, RequestError)
    assert [one.text for one in done if isinstance(one, Completion)] == [FACTS["painter"]] * 2
    kept = [ids for ids in asked if bytes(i for i in ids[-8:] if i < 256) != b"in Lyon,"]
    assert len(kept) == len(set(kept))


async def test_an_upstream_that_fails_is_told_without_what_was_said(folder: Path) -> None:
    async with looped(folder) as (loop, upstream):
        upstream.fault = "500"
        with pytest.raises(UpstreamError) as told:
            await written(loop, plan(question="Who was the painter Marguerite?"))
    assert "Marguerite" not in "".join(map(str, (told.value, told.value.__cause__)))


async def test_an_engine_that_closes_ends_its_streams_threads_and_connections(
    folder: Path,
) -> None:
    before = {thread.name for thread in threading.enumerate()}
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, folder)
        loop = await engine.loop()
        assert loop is not None
        stream = loop.stream(plan())
        await anext(stream)
        upstream.delay_s = SILENT_S
        await awaited_s(lambda: upstream.n_open == 1)
        await engine.aclose()
        with pytest.raises(EngineError, match="closed"):
            async for _ in stream:
                pass
        await awaited_s(lambda: upstream.n_lines == 0)
        with pytest.raises(EngineError):
            await written(loop, plan())
    gone = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in gone if "asker" in name or "scripted" in name]


# --- what it takes -------------------------------------------------------------------------------


async def test_there_is_no_loop_without_a_tokenizer_or_numbers(folder: Path) -> None:
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, None)
        assert await engine.loop() is None
        await engine.aclose()
    for dialect in ("openai", "bare", "strict"):
        async with ScriptedUpstream(ScriptedEngine(FACTS), dialect=dialect) as upstream:
            engine = engine_for(upstream, folder)
            assert await engine.loop() is None
            await engine.aclose()


async def test_another_tokenizer_than_the_upstreams_is_refused(tmp_path: Path) -> None:
    word_tokenizer(FACTS.values()).save_pretrained(tmp_path)
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, tmp_path)
        with pytest.raises(ConfigError, match="is not the tokenizer of"):
            await engine.loop()
        await engine.aclose()


async def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, tmp_path)
        with pytest.raises(ConfigError, match="no tokenizer"):
            await engine.loop()
        await engine.aclose()


async def test_a_loop_is_opened_once(folder: Path) -> None:
    async with ScriptedUpstream(ScriptedEngine(FACTS), dialect="vllm") as upstream:
        engine = engine_for(upstream, folder)
        first, second = await asyncio.gather(engine.loop(), engine.loop())
        assert first is second is not None
        await engine.aclose()


async def test_what_needs_all_scores_or_a_tree_is_refused(folder: Path) -> None:
    async with looped(folder) as (loop, _):
        assert Capability.HIDDEN not in loop.capabilities
        assert Capability.TREE not in loop.capabilities
        given = plan()
        given = replace(given, request=replace(given.request, answer="It was nobody."))
        for wanted in (
            given,
            replace(plan(), decoder="beam"),
            replace(plan(), speculation="force"),
        ):
            with pytest.raises(CapabilityError):
                await written(loop, wanted)


async def test_a_bias_that_raises_a_token_is_refused_for_it_may_not_be_seen(folder: Path) -> None:
    async with looped(folder) as (loop, _):
        raised = plan(sampling={"temperature": 0.0, "logit_bias": {ord("M"): -5, ord("z"): 2.5}})
        with pytest.raises(RequestError) as caught:
            await written(loop, raised)
        assert caught.value.param == "logit_bias"
        lowered = plan(sampling={"temperature": 0.0, "logit_bias": {ord("M"): -5, ord("z"): 0}})
        assert (await written(loop, lowered)).text


# --- the wire ------------------------------------------------------------------------------------

rankings = st.dictionaries(
    st.integers(0, 300_000), st.floats(-50, 0, allow_nan=False), min_size=1, max_size=30
)


@settings(max_examples=25)
@given(rankings)
def test_every_form_of_a_ranking_is_read_alike(scores: dict[int, float]) -> None:
    want = tuple(sorted(scores.items(), key=lambda pair: -pair[1]))
    named = {f"token_id:{token}": logp for token, logp in scores.items()}
    for key in ("token_id", "id"):
        entries = [{key: token, "logprob": logp} for token, logp in scores.items()]
        content = [entries[0] | {"top_logprobs": entries}]
        assert dict(read_ranking(_body({"content": content}))) == scores
    assert read_ranking(_body({"top_logprobs": [named]})) == want


@given(st.recursive(st.none() | st.floats() | st.text("ab:1", max_size=9),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(
                        ["choices", "logprobs", "content", "top_logprobs", "token_id", "logprob"]
                    ), inner, max_size=3)))  # fmt: skip
def test_what_is_no_ranking_is_an_error_of_the_upstreams(value: Any) -> None:
    for body in (orjson.dumps(value), _body(value), b"{", orjson.dumps({"choices": []})):
        with pytest.raises(UpstreamError, match="no likeliest tokens"):
            read_ranking(body)


def _body(logprobs: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "logprobs": logprobs}]})


def test_tokens_that_are_told_by_their_texts_are_no_ranking() -> None:
    with pytest.raises(UpstreamError):
        read_ranking(_body({"top_logprobs": [{" the": -0.1, "17": -0.2}]}))


# --- the asker -----------------------------------------------------------------------------------


def test_a_dropped_ticket_asks_nothing_more() -> None:
    asked = list[int]()

    async def scores(ids: Any, k: int) -> list[tuple[int, float]]:
        asked.append(len(ids))
        return [(1, -0.5)]

    asker, ticket = Asker(scores, k=1), Ticket()
    assert asker.ask([Question((1,), ticket)]) == [[(1, -0.5)]]
    asker.drop(ticket)
    assert asker.ask([Question((1, 2), ticket), Question((1, 2, 3), Ticket())]) == [
        (),
        [(1, -0.5)],
    ]
    asker.close()
    asker.join()
    assert asked == [1, 3]


def test_what_is_known_is_not_asked_again_by_the_same_request() -> None:
    asked = list[int]()

    async def scores(ids: Any, k: int) -> list[tuple[int, float]]:
        asked.append(len(ids))
        return [(1, -0.25)]

    asker, mine, other = Asker(scores, k=1), Ticket(), Ticket()
    for ticket in (mine, mine, other):
        asker.ask([Question((1, 2), ticket)])
    asker.close()
    asker.join()
    assert (asked, mine.n_calls, other.n_calls) == ([2, 2], 1, 1)
    assert mine.missing_mass == pytest.approx(1 - 0.7788, abs=1e-4)


def test_what_is_asked_is_in_no_repr() -> None:
    assert "4711" not in repr(Question((4711,), Ticket()))
