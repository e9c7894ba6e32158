from __future__ import annotations

from typing import Any

import pytest

from elision.contract import Capability, Delta, Engine, Plan, Request, collect
from elision.errors import CapabilityError, EngineError
from elision.testing import Breaking, TextEngine


def _plan(**more: Any) -> Plan:
    return Plan(request=Request(kind="text", prompt="x", **more))


async def _texts(engine: TextEngine, plan: Plan) -> list[tuple[int, str]]:
    return [(d.choice, d.text) async for d in engine.stream(plan) if d.text]


def test_it_is_an_engine_without_capabilities() -> None:
    engine = TextEngine("x")

    assert isinstance(engine, Engine)
    assert engine.capabilities is Capability.NONE
    assert engine.lexicon is None


async def test_pieces_leave_as_they_are_given() -> None:
    assert await _texts(TextEngine(["a", "bc", "d"]), _plan()) == [(0, "a"), (0, "bc"), (0, "d")]


async def test_a_string_leaves_in_pieces_of_the_size_asked_for() -> None:
    assert await _texts(TextEngine("abcde", every=2), _plan()) == [(0, "ab"), (0, "cd"), (0, "e")]
    assert await _texts(TextEngine("abcde", every=0), _plan()) == [(0, "abcde")]


async def test_choices_interleave() -> None:
    texts = await _texts(TextEngine("ab"), _plan(n=2))

    assert texts == [(0, "a"), (1, "a"), (0, "b"), (1, "b")]


async def test_a_function_answers_the_request() -> None:
    engine = TextEngine(lambda request: f"{request.prompt}!")

    assert (await collect(engine.stream(_plan()))).text == "x!"
    assert [request.prompt for request in engine.requests] == ["x"]


@pytest.mark.parametrize(
    ("limits", "text", "finish"),
    [
        ({}, "abcdef", "stop"),
        ({"max_tokens": 2}, "abcd", "length"),
        ({"max_tokens": 3}, "abcdef", "stop"),
        ({"stop": ("e", "cd")}, "ab", "stop"),
        ({"stop": ("d",)}, "abc", "stop"),
        ({"stop": ("a",)}, "", "stop"),
    ],
)
async def test_limits_are_kept(limits: dict[str, Any], text: str, finish: str) -> None:
    reply = await collect(TextEngine("abcdef", every=2).stream(_plan(**limits)))

    assert (reply.choices[0].text, reply.choices[0].finish) == (text, finish)


@pytest.mark.parametrize("after", [0, 2])
async def test_it_breaks_where_it_is_told_to(after: int) -> None:
    deltas: list[Delta] = []

    async def read() -> None:
        async for delta in TextEngine("abcd", breaks_after=after).stream(_plan()):
            deltas.append(delta)

    with pytest.raises(EngineError):
        await read()

    assert "".join(delta.text for delta in deltas) == "abcd"[:after]
    assert not any(delta.finish for delta in deltas)


async def test_it_raises_the_error_it_is_given() -> None:
    with pytest.raises(ZeroDivisionError):
        await collect(TextEngine("ab", breaks_after=1, error=ZeroDivisionError()).stream(_plan()))


async def test_recipes_are_refused_not_ignored() -> None:
    plan = Plan(request=Request(), recipes=(Breaking(),))

    with pytest.raises(CapabilityError, match="LOGITS"):
        await collect(TextEngine("x").stream(plan))


async def test_an_abandoned_stream_is_counted_as_closed() -> None:
    engine = TextEngine("Some text.")
    stream = engine.stream(_plan())
    await anext(stream)
    assert engine.n_open == 1
    await stream.aclose()  # type: ignore[attr-defined]

    assert engine.n_open == 0
