"""What an upstream offers, found out by asking five kinds of it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Capability, Delta, Plan, Request, Sampling, collect
from elision.errors import (
    BusyError,
    CapabilityError,
    ElisionError,
    NotFoundError,
    RequestError,
    UpstreamError,
)
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream import probing
from elision.middleware.engines.upstream.offers import Offers
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_dialects import DIALECTS

ASK = ({"role": "user", "content": "What is the capital of France?"},)
FACTS = {"capital of france": "Paris is the capital."}
ALL = {
    "openai": Offers(
        n_logprobs=20, n_text_logprobs=5, logit_bias=True, prompt_ids=True, completions=True
    ),
    "vllm": Offers(
        n_logprobs=20, n_text_logprobs=20, logit_bias=True, token_ids=True, prompt_ids=True,
        continues=True, bad_words=True, generate=True, completions=True, max_model_len=4096,
        server="vllm",
    ),
    "llama.cpp": Offers(
        n_logprobs=20, n_text_logprobs=20, logit_bias=True, prompt_ids=True, completions=True,
        server="llama.cpp",
    ),
    "strict": Offers(n_logprobs=5),
    "bare": Offers(),
}  # fmt: skip
PASSES = Capability.PASSES


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine(FACTS)
    yield engine
    asyncio.run(engine.aclose())


async def probed(up: ScriptedUpstream, **options: Any) -> RemoteEngine:
    engine = RemoteEngine(up.url, model="scripted", **options)
    await engine.probe()
    await engine.aclose()
    return engine


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_exactly_what_an_upstream_does_is_offered(
    scripted: ScriptedEngine, dialect: str
) -> None:
    async with ScriptedUpstream(scripted, dialect=dialect) as up:
        engine = await probed(up)
        assert engine.offers == ALL[dialect]
        assert len(up.seen) <= 8


async def test_an_offer_is_a_capability() -> None:
    assert Offers().capabilities == PASSES
    assert ALL["vllm"].capabilities == PASSES | Capability.TOP_LOGPROBS | Capability.LOGIT_BIAS | (
        Capability.TOKEN_IDS | Capability.CONTINUE
    )
    assert ALL["strict"].capabilities == PASSES | Capability.TOP_LOGPROBS
    assert Capability.TOKEN_IDS not in Offers(token_ids=True).capabilities


async def test_a_server_that_answers_200_to_everything_offers_what_it_does_no_more() -> None:
    """Words by script: every field is taken, none changes anything but an open turn's length."""
    async with ScriptedUpstream("Paris", dialect="vllm") as up:
        engine = await probed(up)
    found = engine.offers
    assert (found.n_logprobs, found.logit_bias, found.token_ids, found.generate) == (
        0, False, False, False
    )  # fmt: skip
    assert found.continues


async def test_a_limit_below_the_usual_is_found(scripted: ScriptedEngine) -> None:
    async with ScriptedUpstream(scripted, dialect="vllm") as up:
        up.dialect = dataclasses.replace(up.dialect, n_top=5, n_top_text=3)
        found = (await probed(up)).offers
    assert (found.n_logprobs, found.n_text_logprobs, found.token_ids) == (5, 0, True)


async def test_vllm_behind_a_proxy_is_known_by_its_version(scripted: ScriptedEngine) -> None:
    async with ScriptedUpstream(scripted, dialect="vllm") as up:
        up.dialect = dataclasses.replace(up.dialect, owner="some-gateway")
        found = (await probed(up)).offers
    assert (found.server, found.bad_words, found.generate) == ("vllm", True, True)


async def test_nothing_of_a_caller_is_in_a_probe(scripted: ScriptedEngine) -> None:
    async with ScriptedUpstream(scripted, dialect="vllm") as up:
        engine = RemoteEngine(up.url, model="scripted")
        await engine.probe()
        once = [one.body for one in up.seen]
        await collect(engine.stream(Plan(request=Request(messages=ASK, max_tokens=3))))
        again = RemoteEngine(up.url, model="scripted")
        up.seen.clear()
        await again.probe()
        assert [one.body for one in up.seen] == once
        most = [body.get("max_tokens", body.get("sampling_params")) for body in up.bodies]
        assert set(map(str, most)) <= {"1", "{'max_tokens': 1, 'temperature': 0}"}
        await engine.aclose()
        await again.aclose()


async def test_it_is_asked_once_for_all_who_wait() -> None:
    async with ScriptedUpstream("Paris", delay_s=0.02) as up:
        engine = RemoteEngine(up.url, model="scripted")
        found = await asyncio.gather(*(engine.probe() for _ in range(8)))
        n_asked = len(up.seen)
        assert n_asked <= 8
        assert set(found) == {PASSES}
        await engine.probe()
        assert len(up.seen) == n_asked
        await engine.aclose()


async def test_who_leaves_does_not_end_the_probe_of_the_others() -> None:
    async with ScriptedUpstream("Paris", delay_s=0.02, dialect="vllm") as up:
        engine = RemoteEngine(up.url, model="scripted")
        leaving = asyncio.create_task(engine.probe())
        staying = asyncio.create_task(engine.probe())
        await asyncio.sleep(0.03)
        leaving.cancel()
        assert Capability.CONTINUE in await staying
        await engine.aclose()


def test_one_event_loop_after_another_may_probe() -> None:
    engine = RemoteEngine("http://127.0.0.1:1/v1", model="scripted")

    async def once(fault: str | None) -> Capability:
        async with ScriptedUpstream("Paris", dialect="vllm", fault=fault) as up:
            engine.base_url = up.url
            found = await engine.probe()
        await asyncio.sleep(0.01)
        return found

    assert asyncio.run(once("429")) == PASSES
    assert Capability.CONTINUE in asyncio.run(once(None))
    asyncio.run(engine.aclose())


async def test_without_a_probe_nothing_is_asked_and_only_passing_on_is_promised() -> None:
    async with ScriptedUpstream("Paris", dialect="vllm") as up:
        engine = await probed(up, probe=False)
        assert (engine.capabilities, engine.offers, up.seen) == (PASSES, Offers(), [])


@pytest.mark.parametrize("fault", ["refused", "hangs-up", "401", "429", "503"])
async def test_an_upstream_that_cannot_be_asked_is_asked_again(fault: str) -> None:
    async with ScriptedUpstream("Paris", dialect="vllm", fault=fault) as up:
        engine = RemoteEngine(up.url, model="scripted")
        assert await engine.probe() == PASSES
        assert engine.offers == Offers()
        if fault != "refused":
            up.fault = None
            assert Capability.CONTINUE in await engine.probe()
        await engine.aclose()


async def test_after_a_probe_that_took_too_long_nobody_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "TOTAL_S", 1.0)
    async with ScriptedUpstream("Paris", fault="silent") as up:
        engine = RemoteEngine(up.url, model="scripted")
        assert await engine.probe() == PASSES
        began = time.monotonic()
        assert await engine.probe() == PASSES
        assert time.monotonic() - began < 0.9
        await engine.aclose()


async def test_closing_the_engine_ends_its_probe() -> None:
    async with ScriptedUpstream("Paris", fault="silent") as up:
        engine = RemoteEngine(up.url, model="scripted")
        waiting = asyncio.create_task(engine.probe())
        await asyncio.sleep(0.1)
        await engine.aclose()
        assert await asyncio.wait_for(waiting, 5) == PASSES


keys = st.sampled_from(
    "data id owned_by max_model_len version choices message content logprobs top_logprobs token "
    "token_ids prompt_token_ids usage prompt_tokens scripted vllm".split()
)
answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=25,
)
refusals = st.sampled_from(
    [RequestError("no"), NotFoundError("no"), UpstreamError("no", upstream_status=500)]
)


@given(st.lists(answers | refusals, min_size=14, max_size=14))
def test_whatever_an_upstream_answers_it_has_an_offer(said: list[Any]) -> None:
    asked: list[str] = []

    async def ask(method: str, route: str, body: Mapping[str, Any] | None) -> Any:
        asked.append(route)
        answer = said[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    probe = probing.Probe(ask, model="scripted", length_field="max_tokens")
    assert isinstance(asyncio.run(probe.run()).capabilities, Capability)
    assert len(asked) <= 10


@pytest.mark.parametrize(
    "error", [UpstreamError("gone"), BusyError("later"), UpstreamError("key", upstream_status=401)]
)
async def test_an_upstream_that_is_not_well_has_none(error: ElisionError) -> None:
    async def ask(method: str, route: str, body: Mapping[str, Any] | None) -> Any:
        raise error

    probe = probing.Probe(ask, model="scripted", length_field="max_tokens")
    with pytest.raises(type(error)):
        await probe.run()


# --- What is offered works -----------------------------------------------------------------------


async def asked(up: ScriptedUpstream, engine: RemoteEngine, **fields: Any) -> Any:
    greedy = {"sampling": Sampling(temperature=0)}
    return await collect(engine.stream(Plan(request=Request(**greedy | fields))))


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llama.cpp"])
async def test_log_probabilities_are_those_of_the_model(
    scripted: ScriptedEngine, dialect: str
) -> None:
    """The oracle is our own local engine over the same model, code apart from the upstream's."""
    request = Request(messages=ASK, logprobs=3, sampling=Sampling(temperature=0))
    want = (await collect(scripted.stream(Plan(request=request)))).choices[0]
    async with ScriptedUpstream(scripted, dialect=dialect) as up:
        engine = await probed_open(up)
        reply = (await asked(up, engine, messages=ASK, logprobs=3)).choices[0]
        await engine.aclose()
    rows = reply.logprobs[: len(want.logprobs)]
    assert (reply.text, reply.finish) == (want.text, want.finish)
    assert [row.token for row in rows] == [row.token for row in want.logprobs]
    for row, other in zip(rows, want.logprobs, strict=True):
        assert row.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [a.token for a in row.top] == [a.token for a in other.top]


async def probed_open(up: ScriptedUpstream) -> RemoteEngine:
    engine = RemoteEngine(up.url, model="scripted")
    await engine.probe()
    return engine


async def test_a_beginning_is_gone_on_with(scripted: ScriptedEngine) -> None:
    begun = (*ASK, {"role": "assistant", "content": "Paris is"})
    async with ScriptedUpstream(scripted, dialect="vllm") as up:
        engine = await probed_open(up)
        reply = await asked(up, engine, messages=begun, continue_final=True)
        await engine.aclose()
    assert reply.text == " the capital."


async def test_ids_are_a_prompt(scripted: ScriptedEngine) -> None:
    ids = tuple(b"The capital of France?")
    async with ScriptedUpstream(scripted, dialect="vllm") as up:
        engine = await probed_open(up)
        fields: Mapping[str, Any] = {"kind": "text", "prompt": ids, "max_tokens": 5}
        extra = {"return_token_ids": True}
        reply = await asked(up, engine, **fields, logprobs=1, extra=extra)
        deltas = engine.stream(Plan(request=Request(**fields, extra=extra)))
        told = [delta.extra["token_ids"] async for delta in deltas if "token_ids" in delta.extra]
        await engine.aclose()
    assert reply.text == "Paris"
    assert [row.data for row in reply.choices[0].logprobs] == [b"P", b"a", b"r", b"i", b"s"]
    assert all(isinstance(ids, list) for ids in told)


async def test_what_is_not_offered_is_refused_before_it_is_sent(scripted: ScriptedEngine) -> None:
    async with ScriptedUpstream(scripted, dialect="bare") as up:
        engine = await probed_open(up)
        n_asked = len(up.seen)
        with pytest.raises(CapabilityError, match="TOP_LOGPROBS"):
            await asked(up, engine, messages=ASK, logprobs=1)
        assert len(up.seen) == n_asked
        await engine.aclose()


async def test_what_a_strict_server_refuses_is_its_refusal(scripted: ScriptedEngine) -> None:
    async with ScriptedUpstream(scripted, dialect="strict") as up:
        engine = await probed_open(up)
        with pytest.raises(RequestError) as caught:
            await asked(up, engine, messages=ASK, extra={"new_in_2031": 1})
        assert caught.value.param is None  # it is no field that we know: it may be anything
        await engine.aclose()


async def test_tools_go_out_and_their_calls_come_back() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    opening = {"index": 0, "id": "c", "type": "function",
               "function": {"name": "weather", "arguments": ""}}  # fmt: skip
    pieces = [{"reasoning_content": "hm"}, {"tool_calls": [opening]},
              {"tool_calls": [{"index": 0, "function": {"arguments": '{"in": "Paris"}'}}],
               "finish_reason": "tool_calls"}]  # fmt: skip
    async with ScriptedUpstream(lambda body: pieces if body.get("tools") else "None") as up:
        engine = RemoteEngine(up.url, model="scripted", probe=False)
        choice = (await asked(up, engine, messages=ASK, extra={"tools": tools})).choices[0]
        deltas = [d async for d in engine.stream(Plan(request=Request(messages=ASK)))]
        await engine.aclose()
    call = opening | {"function": {"name": "weather", "arguments": '{"in": "Paris"}'}}
    assert choice.message == {"reasoning_content": "hm", "tool_calls": [call]}
    assert (choice.text, choice.finish) == ("", "tool_calls")
    assert deltas[0] == Delta(text="None")
