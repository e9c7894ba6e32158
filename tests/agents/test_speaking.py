"""A model's reply is believed as far as it fits a schema, and no further."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from elision.agents.speaking import EngineSpeaker, Said, Speaker, ask, objects, understood
from elision.contract import Message, Usage
from elision.errors import UpstreamError
from elision.testing import TextEngine


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    n: int
    why: str = ""


class Script:
    """Says its lines in order, and keeps what it was asked."""

    name = "script"

    def __init__(self, *lines: str | Exception) -> None:
        self.lines = list(lines)
        self.asked: list[Sequence[Message]] = []

    async def say(self, messages: Sequence[Message], **_: object) -> Said:
        self.asked.append(list(messages))
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return Said(line, Usage(prompt_tokens=10, completion_tokens=2))


QUESTION: list[Message] = [{"role": "user", "content": "How many?"}]
json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
prose = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=30)


@given(prose, st.dictionaries(st.text(max_size=6), json_value, max_size=4), prose)
def test_an_object_is_found_whatever_prose_stands_around_it(
    before: str, value: dict[str, object], after: str
) -> None:
    for shape in ("{}", "```json\n{}\n```"):
        told = before + shape.replace("{}", json.dumps(value)) + after
        assert list(objects(told)) == [value]


@given(st.text(max_size=300))
def test_no_reply_can_break_the_reader(reply: str) -> None:
    found = understood(reply, Answer)
    assert isinstance(found, str | Answer)


@pytest.mark.parametrize(
    "reply",
    ["{" * 40_000, '{"a":' * 20_000, "[" * 9_000 + "{", '{"n": NaN}', '{"n": 1e999}', "", "42"],
    ids=["braces", "nested", "brackets", "nan", "endless", "empty", "number"],
)
def test_hostile_replies_are_told_from_answers_at_once(reply: str) -> None:
    assert isinstance(understood(reply, Answer), str)


def test_the_first_object_that_fits_is_taken() -> None:
    found = understood('I think {"m": 1} or rather {"n": 2, "more": []}, not {"n": 3}', Answer)
    assert found == Answer(n=2)


def test_what_is_wrong_is_told_without_the_values() -> None:
    fault = understood('{"n": "SECRET-VALUE", "why": 3}', Answer)
    assert isinstance(fault, str)
    assert "SECRET" not in fault
    assert "n: int_parsing" in fault


async def test_a_good_answer_takes_one_call() -> None:
    script, spent = Script('{"n": 3}'), list[Said]()
    assert await ask(script, QUESTION, Answer, spend=spent.append) == Answer(n=3)
    assert [one.usage.total_tokens for one in spent] == [12]
    assert isinstance(script, Speaker)


async def test_a_malformed_answer_is_asked_for_once_more_with_its_fault() -> None:
    script, spent = Script("three!", 'Sure: {"n": 3}'), list[Said]()
    assert await ask(script, QUESTION, Answer, spend=spent.append) == Answer(n=3)
    assert len(spent) == 2
    assert [m["role"] for m in script.asked[1]] == ["user", "assistant", "user"]
    assert "no JSON object" in script.asked[1][2]["content"]
    assert len(QUESTION) == 1


async def test_malformed_twice_is_worth_nothing_and_still_paid_for() -> None:
    script, spent = Script("three", '{"n": "x"}', '{"n": 3}'), list[Said]()
    assert await ask(script, QUESTION, Answer, spend=spent.append) is None
    assert len(spent) == 2


async def test_there_is_no_second_try_without_budget() -> None:
    script, spent = Script("three", '{"n": 3}'), list[Said]()
    assert await ask(script, QUESTION, Answer, spend=spent.append, again=lambda: False) is None
    assert len(script.asked) == len(spent) == 1


@pytest.mark.parametrize("error", [UpstreamError("gone"), TimeoutError(), OSError()])
async def test_a_broken_model_answers_nothing(error: Exception) -> None:
    assert await ask(Script(error), QUESTION, Answer, spend=lambda _: None) is None


async def test_a_cancellation_passes() -> None:
    started = asyncio.Event()

    class Slow(Script):
        async def say(self, messages: Sequence[Message], **_: object) -> Said:
            started.set()
            await asyncio.sleep(60)
            raise AssertionError

    running = asyncio.create_task(ask(Slow(), QUESTION, Answer, spend=lambda _: None))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_engine_speaks_and_its_tokens_are_counted_or_marked_as_estimated() -> None:
    engine = TextEngine("four", every=0)
    said = await EngineSpeaker(engine).say(QUESTION, max_tokens=7, seed=3)
    assert said.text == "four"
    assert said.estimated
    assert said.usage.prompt_tokens == 3
    assert said.wall_ms > 0
    [request] = engine.requests
    assert (request.max_tokens, request.sampling.temperature, request.sampling.seed) == (7, 0.0, 3)


async def test_a_cancelled_speaker_ends_the_engines_stream() -> None:
    began = asyncio.Event()
    engine = TextEngine(lambda _: began.set() or "a long reply " * 1000)
    running = asyncio.create_task(EngineSpeaker(engine).say(QUESTION, max_tokens=10_000))
    await began.wait()
    await asyncio.sleep(0)
    assert engine.n_open == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.n_open == 0
