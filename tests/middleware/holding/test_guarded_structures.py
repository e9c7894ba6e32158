"""Fields, lists and calls as real servers send them: repeated, mixed, split over neighbours."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from elision.contract import (
    Alternative,
    Capability,
    Completion,
    Delta,
    Plan,
    Request,
    Sampling,
    TokenLogprob,
    collect,
)
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.fields import Fields
from elision.middleware.holding.layers import Encodings, Layers, Phrases
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.holding.said import Said
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine

STREET = "Marlowe Street"
NUMBER = "4711081512"
TARGET = ForgetTarget(id="t", title="x", phrases=(Phrase(text=STREET), Phrase(text=NUMBER)))
RULES = Enforcement([TARGET], tenant="default", epoch=1, encoder=None)
LAYERS = Layers(
    layers=(Phrases(RULES, ""), Encodings(RULES, "")), rules=RULES, user="", has_encodings=True
)
END = Delta(finish="stop")


class Playing:
    """Plays deltas, whatever it is asked; notes how far it got."""

    name = "playing"
    capabilities = Capability.PASSES

    def __init__(self, *plays: Sequence[Delta]) -> None:
        self.plays = list(plays)
        self.asked: list[Request] = []
        self.n_played = 0

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        self.asked.append(plan.request)
        play = self.plays[min(len(self.asked), len(self.plays)) - 1]
        for delta in play:
            self.n_played += 1
            yield delta


async def guarded(engine: Any, **more: Any) -> tuple[list[Delta], Completion]:
    request = Request(**{"messages": ({"role": "user", "content": "Where is it?"},), **more})
    defence = Defence(profile=PROFILES["guarded"], rules=RULES)
    deltas = []
    replies = guarded_replies(engine, Plan(request=request), defence, refusal="No.")
    async with aclosing(replies) as source:
        async for delta in source:
            deltas.append(delta)
    return deltas, await collect(_each(deltas))


async def _each(deltas: list[Delta]) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    return {"index": index, **more, "function": {"arguments": arguments}}


def test_a_field_that_is_repeated_on_every_chunk_costs_no_more_each_time() -> None:
    results = {"hate": {"filtered": False, "severity": "safe"}, "offset": "0"}

    def cost_s(n_chunks: int) -> float:
        fields, begun = Fields(LAYERS), time.process_time()
        for _ in range(n_chunks):
            assert fields.clean({"content_filter_results": results})
        return time.process_time() - begun

    assert cost_s(2000) < 20 * cost_s(200) + 0.2


def test_what_changes_on_every_chunk_is_read_once() -> None:
    said, begun = Said(LAYERS), time.process_time()
    assert all(said.allows(f"offset {n:04}") for n in range(300))
    assert time.process_time() - begun < 3.0


@pytest.mark.parametrize(
    "pieces",
    [
        ["Mar", "lowe ", "Street"],
        ["x ", STREET],
        ["Marlowe", " Street"],
        ["Marlowe ", "Street", "Street"],
    ],
)
def test_pieces_under_one_name_are_read_behind_each_other(pieces: list[str]) -> None:
    said = Said(LAYERS)
    left = "".join(piece for piece in pieces if said.allows(piece))

    assert N(STREET) not in N(left)


def test_a_phrase_that_repeats_itself_is_found() -> None:
    target = ForgetTarget(id="t", title="x", phrases=(Phrase(text="tora tora tora"),))
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    said = Said(replace(LAYERS, rules=rules, layers=(Phrases(rules, ""),)))

    assert [said.allows("tora ") for _ in range(3)] == [True, True, False]


def test_pieces_of_json_are_read_without_their_escapes() -> None:
    said = Said(LAYERS, json=True)
    assert said.allows(r'{"a": "Marlowe\n')
    assert not said.allows(r"Str\u0065et")


def test_a_string_without_end_is_not_read() -> None:
    assert not Said(LAYERS).allows("a" * 20_001)


@pytest.mark.parametrize(
    "value",
    [
        {"Marlowe": "Street"}, ["Marlowe", ["Street"]], {"a": "Marlowe", "b": "Street"},
        [{"a": "Marlowe"}, {"b": "Street"}], {"a": 47110, "b": 81512}, ["Marlowe", {"t": "Street"}],
    ],
)  # fmt: skip
async def test_neighbours_say_nothing_together(value: Any) -> None:
    play = [Delta(text="Hi", message={"musings": value}, extra={"zz": value}), END]
    _, reply = await guarded(Playing(play))
    shown = json.dumps([dict(reply.choices[0].message), dict(reply.choices[0].extra)])

    assert reply.choices[0].text == "Hi"
    assert not any(word in shown for word in ("Street", "81512"))


async def test_the_blocks_of_a_list_are_read_behind_each_other() -> None:
    blocks = ["They live at Marlowe", " Street."]
    play = [
        Delta(message={"reasoning_details": [{"index": n, "type": "text", "text": text}]})
        for n, text in enumerate(blocks)
    ]
    _, reply = await guarded(Playing([*play, Delta(text="ok"), END]))

    assert reply.choices[0].finish == "content_filter"
    assert "Street" not in json.dumps(dict(reply.choices[0].message))


async def test_calls_that_are_mixed_come_through() -> None:
    opened = [call(n, "", id=f"c{n}", type="function", name="f") for n in (0, 1)]
    pieces = [[opened[0], opened[1]], [call(0, '{"a": ')], [call(1, '{"b": ')], [call(0, "1}")],
              [call(1, "2}")]]  # fmt: skip
    play = [Delta(message={"tool_calls": piece}) for piece in pieces]
    _, reply = await guarded(Playing([*play, Delta(finish="tool_calls")]))
    (choice,) = reply.choices

    assert choice.finish == "tool_calls"
    said = [one["function"]["arguments"] for one in choice.message["tool_calls"]]
    assert said == ['{"a": 1}', '{"b": 2}']


async def test_whatever_leaves_of_a_refused_call_has_its_index() -> None:
    bad = {"id": "c", "function": {"name": "f", "arguments": f'{{"a": "{STREET}"}}'}, "index": 0}
    deltas, reply = await guarded(Playing([Delta(message={"tool_calls": [bad]}), END]))

    assert reply.choices[0].finish == "content_filter"
    pieces = [piece for delta in deltas for piece in delta.message.get("tool_calls", ())]
    assert pieces
    assert all(piece["index"] == 0 for piece in pieces)


@pytest.mark.parametrize("index", [4711081512, -1, True])
async def test_an_index_says_nothing(index: Any) -> None:
    play = [Delta(text="Hi", message={"musings": [{"index": index, "a": "q"}]}), END]
    _, reply = await guarded(Playing(play))

    assert NUMBER not in json.dumps(dict(reply.choices[0].message))


async def test_tokens_that_go_by_their_number_are_no_alternatives() -> None:
    top = (Alternative("token_id:17", -1.0, b"a"), Alternative("b", -2.0, b"b"))
    entry = TokenLogprob("token_id:9", -0.1, b"Hi", top)
    _, reply = await guarded(Playing([Delta(text="Hi", logprobs=(entry,)), END]), logprobs=2)

    (left,) = reply.choices[0].logprobs
    assert (left.token, [one.token for one in left.top]) == ("Hi", ["b"])


async def test_a_stop_text_found_here_ends_the_upstream_at_once() -> None:
    endless = [Delta(text=" END"), *[Delta(text=" on")] * 500, END]
    engine = Playing([Delta(text=f"at {STREET}"), END], endless)
    _, reply = await guarded(
        engine, kind="text", messages=(), prompt="q", stop=("END",), sampling=Sampling()
    )

    assert reply.choices[0].finish == "stop"
    assert engine.n_played < 5


@pytest.mark.parametrize("prompt", [f"{STREET} is", "They live in Marlowe"])
async def test_an_echoed_prompt_that_is_refused_ends_the_choice(prompt: str) -> None:
    told = TokenLogprob("Lane", -0.1, b"Lane", (Alternative("Lane", -0.1, b"Lane"),))
    told_there = [Delta(text="Lane", logprobs=(told,)), END]
    engine = Playing([Delta(text=prompt), Delta(text=" Street, long"), END], told_there)
    engine.capabilities |= Capability.TOP_LOGPROBS
    _, reply = await guarded(engine, kind="text", messages=(), prompt=prompt, echo=True)

    assert reply.choices[0].finish == "content_filter"
    assert N(STREET) not in N(reply.choices[0].text)


async def test_the_usage_of_a_refused_reply_is_estimated_and_says_so() -> None:
    _, refused = await guarded(TextEngine([f"It is {STREET}"]))
    _, whole = await guarded(TextEngine(["It is far"]))

    assert refused.usage.prompt_tokens == 3, "twelve letters"
    assert refused.report["usage_estimated"] is True
    assert "usage_estimated" not in whole.report
