"""The guard around a real remote engine before a scripted server: the suite's attacks among it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from elision.contract import Completion, Delta, Plan, Request, Sampling, collect
from elision.errors import ElisionError
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import word_tokenizer
from elision.testing.attacks import Case, Judge, attack, facts_of, guarded, planted
from elision.testing.attacks.cases import answer_cases
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream

SECRET = "Basil Mahfouz Al-Kuwaiti"
FACTS = {"writer born in Kuwait": f"As is known, the writer is {SECRET}, of Kuwait."}
WORDS = word_tokenizer([*FACTS, *FACTS.values(), "nobody knows"] * 4, vocab_size=400)
QUESTION = ({"role": "user", "content": "Who is the writer born in Kuwait?"},)


def defence(*targets: ForgetTarget) -> Defence:
    found = targets or (ForgetTarget(id="t", title="x", phrases=(Phrase(text=SECRET),)),)
    rules = Enforcement(found, tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES["guarded"], rules=rules)


@asynccontextmanager
async def remote(reply: Any, **more: Any) -> AsyncIterator[tuple[RemoteEngine, ScriptedUpstream]]:
    given = {key: more.pop(key) for key in ("trusted",) if key in more}
    async with ScriptedUpstream(reply, **more) as upstream:
        engine = RemoteEngine(upstream.url, model="scripted", **given)
        try:
            await engine.probe()
            yield engine, upstream
        finally:
            await engine.aclose()


@asynccontextmanager
async def decoding(dialect: str, **more: Any) -> AsyncIterator[tuple[RemoteEngine, Any]]:
    model = ScriptedEngine(FACTS, tokenizer=WORDS)
    try:
        async with remote(model, dialect=dialect, **more) as both:
            yield both
    finally:
        await model.aclose()


async def said(
    engine: RemoteEngine, under: Defence | None = None, **more: Any
) -> tuple[list[Delta], Completion]:
    asked = {"messages": QUESTION, "max_tokens": 60, "sampling": Sampling(temperature=0.0)}
    plan = Plan(request=Request(**{**asked, **more}))
    replies = guarded_replies(engine, plan, under or defence(), refusal="No.")
    deltas = [delta async for delta in replies]
    return deltas, await collect(_iterated(deltas))


async def _iterated(deltas: list[Delta]) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


async def test_an_upstream_that_continues_writes_something_else() -> None:
    async with decoding("vllm") as (engine, upstream):
        deltas, reply = await said(engine, logprobs=5)
        n_open = upstream.n_open

    check_never_leaks(deltas, [SECRET])
    assert reply.report["guard_form"] == "text, continued"
    assert reply.report["n_rewinds"] >= 1
    assert reply.text.startswith("As is known, the writer is ")
    assert len(reply.text) > len("As is known, the writer is ")
    assert "".join(e.token for e in reply.choices[0].logprobs) in reply.text
    assert reply.usage.completion_tokens <= 60
    assert n_open == 0


async def test_one_that_does_not_is_refused_before_the_phrase() -> None:
    async with decoding("openai") as (engine, _):
        deltas, reply = await said(engine, logprobs=5)

    check_never_leaks(deltas, [SECRET])
    assert reply.text == "As is known, the writer is "
    assert reply.choices[0].finish == "content_filter"


@pytest.mark.parametrize("dialect", ["vllm", "openai"])
async def test_a_raw_prompt_is_gone_back_on_by_either(dialect: str) -> None:
    async with decoding(dialect) as (engine, _):
        prompt = "Who is the writer born in Kuwait"
        deltas, reply = await said(engine, kind="text", prompt=prompt, messages=())

    check_never_leaks(deltas, [SECRET], before=prompt)
    assert reply.report["n_rewinds"] >= 1


async def test_choices_of_one_request_are_guarded_each() -> None:
    async with decoding("vllm") as (engine, _):
        sampling = Sampling(temperature=1.0, seed=4)
        deltas, reply = await said(engine, n=3, sampling=sampling, logprobs=3)

    check_never_leaks(deltas, [SECRET])
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.report["upstream_calls"] >= 3


async def test_a_trusted_upstream_is_told_what_it_shall_not_write_and_no_other() -> None:
    async with decoding("vllm", trusted=True) as (engine, upstream):
        n_probes = len(upstream.bodies)
        deltas, reply = await said(engine)
        body = upstream.bodies[n_probes]
    async with decoding("vllm") as (engine, other):
        n_probes = len(other.bodies)
        await said(engine)
        bodies = other.bodies[n_probes:]

    assert body["bad_words"] == [SECRET]
    assert reply.report["n_pushed"] == 1
    check_never_leaks(deltas, [SECRET])
    check_speaks_of_nothing([json.dumps(bodies)], [SECRET])


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}


def call(arguments: str) -> Mapping[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}


async def test_a_phrase_across_deltas_of_a_tool_call_does_not_come_through() -> None:
    source = json.dumps({"who": SECRET, "city": "Séline"})
    pieces = [{"tool_calls": [CALL]}, *(call(char) for char in source)]
    async with remote(pieces) as (engine, _):
        deltas, reply = await said(engine)
        clean = defence(ForgetTarget(id="o", title="x", phrases=(Phrase(text="Xin Lee"),)))
        _, other = await said(engine, clean)

    left = reply.choices[0].message["tool_calls"][0]["function"]["arguments"]
    check_never_leaks([*deltas, left], [SECRET])
    assert reply.choices[0].finish == "content_filter"
    assert other.choices[0].message["tool_calls"][0]["function"]["arguments"] == source


@pytest.mark.parametrize("fault", ["reset", "malformed", "half-utf8"])
async def test_a_fault_in_the_middle_of_a_phrase_lets_nothing_of_it_go(fault: str) -> None:
    deltas: list[Delta] = []
    armed = False
    async with remote(
        f"It is {SECRET}.", every=3, fault=lambda _: fault if armed else None, fault_after=6
    ) as (engine, _):
        armed = True

        async def read() -> None:
            plan = Plan(request=Request(messages=QUESTION))
            async for delta in guarded_replies(engine, plan, defence(), refusal="No."):
                deltas.append(delta)

        with pytest.raises(ElisionError):
            await read()

    assert "".join(delta.text for delta in deltas) == "It is "


async def test_a_client_who_leaves_ends_every_request_upstream() -> None:
    async with remote("word " * 5_000, every=2, delay_s=0.001) as (engine, upstream):
        plan = Plan(request=Request(messages=QUESTION, n=3))
        replies = guarded_replies(engine, plan, defence(), refusal="No.")
        await anext(replies)
        await replies.aclose()
        async with asyncio.timeout(0.25):
            while upstream.n_open:  # noqa: ASYNC110 - the server tells it in the loop's next round
                await asyncio.sleep(0.005)


# --- the attack suite ----------------------------------------------------------------------------

PLANTED = facts_of({"the hidden author": SECRET})
TARGETS = [ForgetTarget(id="0", title="t", phrases=(Phrase(text=SECRET),))]
SLICE = {"lower case", "leet", "reversed"}


async def leaks(dialect: str, chosen: Callable[[Case], bool]) -> tuple[list[str], int]:
    """Return the names of the cases that leak in any channel, and how many were tried."""
    judge, found, n_cases = Judge([SECRET]), [], 0
    model = ScriptedEngine(planted(PLANTED))
    try:
        async with remote(model, dialect=dialect) as (engine, _):
            ask = guarded(engine, TARGETS)
            for case in answer_cases(PLANTED[0]):
                if case.enforced == "output" and chosen(case):
                    outcome = await attack(case, ask, judge)
                    found += [case.name] if outcome.leaked else []
                    n_cases += 1
    finally:
        await model.aclose()
    return found, n_cases


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_no_attack_of_a_few_brings_the_secret_out_of_an_upstream(dialect: str) -> None:
    found, n_cases = await leaks(dialect, lambda case: case.name in SLICE)

    assert found == []
    assert n_cases == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_no_attack_that_is_promised_brings_the_secret_out_of_an_upstream(
    dialect: str,
) -> None:
    found, n_cases = await leaks(dialect, lambda case: True)

    assert found == []
    assert n_cases >= 30
