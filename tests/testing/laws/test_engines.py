from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from elision.contract import Delta, Engine, Plan, Request, Sampling, Usage
from elision.errors import EngineError, GuardError
from elision.testing import Breaking
from elision.testing.laws import (
    acheck_fails_closed,
    acheck_restored,
    acheck_stream_equals_whole,
)
from elision.testing.scripted import ScriptedEngine

FACTS = {"capital of France": "The capital of France is Paris.", "author": "Basil Mahfouz."}


def _plan(question: str = "capital of France", *, temperature: float = 1.0, **more: Any) -> Plan:
    messages = ({"role": "user", "content": f"What is the {question}?"},)
    sampling = Sampling(temperature=temperature, seed=7)
    return Plan(request=Request(messages=messages, max_tokens=24, sampling=sampling, **more))


def _scripted() -> ScriptedEngine:
    return ScriptedEngine(FACTS)


END = Delta(usage=Usage(), report={})

Tamper = Callable[["Tampered", Plan], AsyncIterator[Delta]]


class Tampered:
    """A lawful engine with one fault."""

    lexicon = None

    def __init__(self, tamper: Tamper) -> None:
        self.inner = _scripted()
        self.name, self.capabilities = self.inner.name, self.inner.capabilities
        self.tamper = tamper
        self.served = self.n_open = 0
        self.broken = False

    def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        return self.tamper(self, plan)

    async def aclose(self) -> None:
        await self.inner.aclose()


# --- law 2 ---------------------------------------------------------------------------------------


async def _counts_requests(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    self.served += 1
    async for delta in self.inner.stream(plan):
        yield replace(delta, text=delta.text + "." * (self.served - 1) * (delta.finish is not None))


async def _drifts(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    """Text stays; the scores drift by a hair."""
    self.served += 1
    async for delta in self.inner.stream(plan):
        entries = [replace(e, logprob=e.logprob - 1e-6 * self.served) for e in delta.logprobs]
        yield replace(delta, logprobs=tuple(entries))


async def _keeps_what_was_abandoned(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    done = False
    try:
        async for delta in self.inner.stream(plan):
            yield replace(delta, text=delta.text.upper()) if self.broken else delta
        done = True
    finally:
        self.broken = self.broken or not done


async def _stays_broken(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    self.broken = self.broken or any(isinstance(r, Breaking) for r in plan.recipes)
    async for delta in self.inner.stream(plan):
        yield replace(delta, finish="stop") if self.broken and delta.finish else delta


async def test_lawful_engine_is_restored() -> None:
    await acheck_restored(_scripted, _plan(), _plan("author", n=2), _plan(temperature=0))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_counts_requests, "another text from character"),
        (_drifts, "other log-probabilities"),
        (_keeps_what_was_abandoned, "another text"),
        (_stays_broken, "ends by stop, not length"),
    ],
)
async def test_an_engine_that_remembers_is_caught(tamper: Tamper, said: str) -> None:
    with pytest.raises(AssertionError, match=f"after other requests.*{said}"):
        await acheck_restored(lambda: Tampered(tamper), _plan())


# --- law 5 ---------------------------------------------------------------------------------------


async def _hurries(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    """Says less to a slow reader."""
    loop = asyncio.get_running_loop()
    async for delta in self.inner.stream(plan):
        before = loop.time()
        yield delta
        if loop.time() - before > 0.0005 and delta.text:
            yield replace(delta, text="~", logprobs=(), finish=None)


async def _minds_its_neighbours(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    self.n_open += 1
    try:
        async for delta in self.inner.stream(plan):
            yield replace(delta, text=delta.text.lower()) if self.n_open > 1 else delta
    finally:
        self.n_open -= 1


async def _minds_its_width(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    seed = plan.request.n
    request = replace(plan.request, sampling=replace(plan.request.sampling, seed=seed))
    async for delta in self.inner.stream(replace(plan, request=request)):
        yield delta


async def _forgets_usage(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    async for delta in self.inner.stream(plan):
        yield replace(delta, usage=None)


async def _draws_afresh(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    request = replace(plan.request, sampling=replace(plan.request.sampling, seed=None))
    async for delta in self.inner.stream(replace(plan, request=request)):
        yield delta


@pytest.mark.parametrize("more", [{}, {"n": 2, "logprobs": 2}, {"stop": (" of",)}])
async def test_lawful_engine_streams_what_it_says_whole(more: dict[str, Any]) -> None:
    engine = _scripted()
    other = replace(_plan("author"), tenant="another")
    try:
        await acheck_stream_equals_whole(engine, _plan(**more), beside=other)
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_hurries, "follows the end of choice|read slowly"),
        (_minds_its_neighbours, "another request beside it"),
        (_minds_its_width, "with one choice more"),
        (_forgets_usage, "no usage"),
        (_draws_afresh, "another text"),
    ],
)
async def test_a_stream_that_differs_is_caught(tamper: Tamper, said: str) -> None:
    engine = Tampered(tamper)
    try:
        with pytest.raises(AssertionError, match=said):
            await acheck_stream_equals_whole(engine, _plan())
    finally:
        await engine.aclose()


# --- law 7 ---------------------------------------------------------------------------------------


def _unguarded(plan: Plan) -> Plan:
    return replace(plan, recipes=tuple(r for r in plan.recipes if not isinstance(r, Breaking)))


async def _ignores(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    async for delta in self.inner.stream(_unguarded(plan)):
        yield delta


async def _goes_on(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    """Ends with an error all right, after it has said everything."""
    async for delta in self.inner.stream(_unguarded(plan)):
        yield delta
    if plan.recipes:
        raise GuardError("broken")


async def _stops_quietly(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    try:
        async for delta in self.inner.stream(plan):
            yield delta
    except EngineError:
        yield Delta(finish="stop")
        yield END


async def _raises_what_it_caught(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    try:
        async for delta in self.inner.stream(plan):
            yield delta
    except EngineError as exc:
        raise exc.__cause__ or exc from None


async def _repeats_what_it_caught(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    try:
        async for delta in self.inner.stream(plan):
            yield delta
    except EngineError as exc:
        raise EngineError(f"broke: {exc.__cause__}") from exc


async def _refuses(self: Tampered, plan: Plan) -> AsyncIterator[Delta]:
    """Lawful: the target's action instead of an error."""
    try:
        async for delta in self.inner.stream(plan):
            yield delta
    except EngineError:
        yield Delta(text=plan.refusal, finish="content_filter")
        yield END


@pytest.mark.parametrize("make", [_scripted, lambda: Tampered(_refuses)], ids=["error", "refusal"])
async def test_lawful_engine_fails_closed(make: Callable[[], Engine]) -> None:
    await acheck_fails_closed(make, replace(_plan(), refusal="No."))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_ignores, "broke in begin after 0 tokens did not end the reply"),
        (_goes_on, r"let \d+ characters pass; 0 may"),
        (_stops_quietly, "did not end the reply"),
        (_raises_what_it_caught, "BrokenGuardError, which is none of ours"),
        (_repeats_what_it_caught, "had its exception's text repeated"),
        (_stays_broken, "after broken guards"),
    ],
)
async def test_an_engine_that_fails_open_is_caught(tamper: Tamper, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await acheck_fails_closed(lambda: Tampered(tamper), _plan(temperature=0.0))


async def test_a_reply_too_short_to_break_in_is_no_proof() -> None:
    plan = _plan()
    short = replace(plan, request=replace(plan.request, max_tokens=2))

    with pytest.raises(AssertionError, match="the reply has 2 tokens; more than 3 needed"):
        await acheck_fails_closed(_scripted, short)
