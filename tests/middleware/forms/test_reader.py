"""Raw text becomes a message: the same one, however the text is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import Choice, Delta, Finish, TokenLogprob, Usage, collect
from elision.middleware.forms.dialects import HERMES, LLAMA, MISTRAL, PLAIN, THINK, Dialect
from elision.middleware.forms.form import Form, Tool
from elision.middleware.forms.reader import ObjectEnd
from elision.middleware.forms.reading import read

TOOLS = (Tool(name="find"), Tool(name="find_all"), Tool(name="x"))
MAY = Form(tools=TOOLS, calls="may")
THINKING = replace(HERMES, think=THINK)
DIALECTS = {
    "hermes": HERMES,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "thinking": THINKING,
    "bare thinking": replace(LLAMA, think=THINK),
    "plain": replace(PLAIN, think=THINK),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON, max_size=3)
# What looks like the dialects' own marks, whole and in parts, among other text.
BITS = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", "\n", " ", "<think>", "</think>", "<", "{", "}", "[", "]",
         '{"name": "find", "arguments": ', '{"name": "find", "parameters": ', '"', "\\", ", ", "a",
         "é🙂", "<tool", "_call>", "</th"]
    ),
    max_size=14,
)  # fmt: skip


def message_of(
    pieces: Sequence[str],
    dialect: Dialect,
    form: Form = MAY,
    *,
    finish: Finish = "stop",
    is_thinking: bool = False,
) -> Choice:
    async def deltas() -> AsyncIterator[Delta]:
        for piece in pieces:
            yield Delta(text=piece)
        yield Delta(finish=finish)

    found = read(deltas(), form, dialect, is_thinking=is_thinking)
    return asyncio.run(collect(found)).choices[0]


def told(choice: Choice) -> dict[str, Any]:
    """Return what a message says; ids, which are drawn, left out."""
    calls = choice.message.get("tool_calls", [])
    return {
        "content": choice.text,
        "thought": choice.message.get("reasoning_content", ""),
        "calls": [(c["function"]["name"], c["function"]["arguments"]) for c in calls],
        "finish": choice.finish,
    }


def written(dialect: Dialect, calls: Sequence[tuple[str, str]]) -> str:
    """Return *calls* as a model of *dialect* writes them."""
    each = [dialect.head(name) + arguments + dialect.tail for name, arguments in calls]
    return dialect.calls_begin + (dialect.separator or "").join(each) + dialect.calls_end


def cut(data: st.DataObject, text: str) -> list[str]:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


# --- Laws ----------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(BITS, st.sampled_from(list(DIALECTS)), st.booleans(), st.data())
def test_any_cut_of_any_text_gives_the_same_message(
    bits: list[str], name: str, is_thinking: bool, data: st.DataObject
) -> None:
    dialect, text = DIALECTS[name], "".join(bits)
    inside = is_thinking and dialect.think is not None
    whole = told(message_of([text], dialect, is_thinking=inside))

    assert told(message_of(cut(data, text), dialect, is_thinking=inside)) == whole
    assert told(message_of(list(text), dialect, is_thinking=inside)) == whole


@settings(max_examples=25)
@given(
    st.sampled_from(["hermes", "llama", "mistral", "thinking"]),
    st.lists(st.tuples(st.sampled_from(["find", "x"]), ARGUMENTS), min_size=1, max_size=3),
    st.booleans(),
    st.data(),
)  # fmt: skip
def test_calls_come_back_as_they_were_written(
    name: str, calls: list[tuple[str, dict[str, Any]]], is_ascii: bool, data: st.DataObject
) -> None:
    dialect = DIALECTS[name]
    calls = calls if dialect.separator is not None else calls[:1]
    sources = [(tool, json.dumps(args, ensure_ascii=is_ascii)) for tool, args in calls]
    found = told(message_of(cut(data, written(dialect, sources)), dialect))

    assert found == {"content": "", "thought": "", "calls": sources, "finish": "tool_calls"}


@settings(max_examples=25)
@given(ARGUMENTS, st.text(max_size=5), st.data())
def test_an_objects_end_is_where_a_parser_finds_it(
    value: dict[str, Any], rest: str, data: st.DataObject
) -> None:
    source = json.dumps(value)
    scan, read_so_far = ObjectEnd(), 0
    for piece in cut(data, source + rest):
        end = scan.find(piece)
        if end is not None:
            break
        read_so_far += len(piece)

    assert end is not None
    assert read_so_far + end == json.JSONDecoder().raw_decode(source + rest)[1]


@given(st.text(max_size=30), st.data())
def test_what_is_neither_thought_nor_call_is_content_to_the_last_character(
    text: str, data: st.DataObject
) -> None:
    for dialect in (HERMES, LLAMA, MISTRAL):
        found = told(message_of(cut(data, text), dialect))
        assert found == {"content": text, "thought": "", "calls": [], "finish": "stop"}


# --- Examples ------------------------------------------------------------------------------------

CALL = written(HERMES, [("find", '{"a": 1}')])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"I look.\n\n{CALL}", {"content": "I look.", "calls": [("find", '{"a": 1}')]}),
        (f"<think>\nHm.\n</think>\n\nYes.\n{CALL}", {"content": "Yes.", "thought": "Hm."}),
        (f"<think>{CALL}</think>No.", {"content": "No.", "thought": CALL, "calls": []}),
        ("<think>\n\n</think>\n\nYes.", {"content": "Yes.", "thought": ""}),
        ("So <think> is text here.", {"content": "So <think> is text here.", "thought": ""}),
        ("<think>Hm", {"content": "", "thought": "Hm"}),
        (f"{CALL}\n{CALL}", {"calls": [("find", '{"a": 1}')] * 2}),
        ("<tool_call", {"content": "<tool_call"}),
    ],
)
def test_a_reply_is_taken_apart(text: str, found: Mapping[str, Any]) -> None:
    said = told(message_of([text], THINKING))

    assert {key: said[key] for key in found} == found
    assert said["finish"] == ("tool_calls" if said["calls"] else "stop")


@pytest.mark.parametrize("end", range(len(CALL)))
def test_a_call_that_is_cut_off_is_told_as_far_as_it_stands(end: int) -> None:
    said = told(message_of([CALL[:end]], HERMES, finish="length"))
    head = len(HERMES.head("find"))
    if end < len("<tool_call>"):
        assert (said["content"], said["calls"]) == (CALL[:end], [])
    elif end < head:
        assert (said["content"], said["calls"]) == ("", []), "of a call without a name, nothing"
    else:
        assert said["calls"] == [("find", CALL[head:end][: len('{"a": 1}')])]
    assert said["finish"] == "length"


def test_a_call_that_a_stop_text_cut_off_is_not_called_whole() -> None:
    assert told(message_of([CALL[:-20]], HERMES))["finish"] == "stop"


def test_where_nothing_may_be_called_a_call_is_text() -> None:
    said = told(message_of([CALL], HERMES, Form(tools=TOOLS, calls="none")))

    assert (said["content"], said["calls"]) == (CALL, [])


def test_a_call_is_streamed_name_first_and_then_its_arguments_as_they_come() -> None:
    async def deltas() -> AsyncIterator[Delta]:
        for char in CALL:
            yield Delta(text=char)
        yield Delta(finish="stop")

    async def pieces() -> list[Delta]:
        return [delta async for delta in read(deltas(), MAY, HERMES)]

    first, *rest, last = asyncio.run(pieces())
    [call] = first.message["tool_calls"]
    fragments = [delta.message["tool_calls"] for delta in rest]

    assert call["id"].startswith("call_")
    assert len(call["id"]) == len("call_") + 24
    assert {k: v for k, v in call.items() if k != "id"} == {
        "index": 0, "type": "function", "function": {"name": "find", "arguments": ""},
    }  # fmt: skip
    assert fragments == [[{"index": 0, "function": {"arguments": char}}] for char in '{"a": 1}']
    assert last == Delta(finish="tool_calls")


@given(st.data())
def test_log_probabilities_stay_with_the_content_and_thoughts_are_counted(
    data: st.DataObject,
) -> None:
    text = f"<think>\nHm, é.\n</think>\n\nI look é.\n{CALL}"
    tokens = cut(data, text)

    async def deltas() -> AsyncIterator[Delta]:
        for token in tokens:
            entry = TokenLogprob(token, -1.0, token.encode())
            yield Delta(text=token, logprobs=(entry,) if token else ())
        yield Delta(finish="stop")
        yield Delta(usage=Usage(completion_tokens=len(tokens)), report={})

    whole = asyncio.run(collect(read(deltas(), MAY, THINKING)))
    [choice] = whole.choices

    assert b"".join(entry.data for entry in choice.logprobs).decode() == choice.text == "I look é."
    at, n_thought = 0, 0
    for token in tokens:
        n_thought += bool(token) and at < text.index("\n</think>") and at + len(token) > 8
        at += len(token)
    details = whole.usage.extra.get("completion_tokens_details", {"reasoning_tokens": 0})
    assert details["reasoning_tokens"] == n_thought


def test_a_refused_reply_says_so_only_where_nothing_else_was_said() -> None:
    async def deltas(text: str) -> AsyncIterator[Delta]:
        yield Delta(text=text)
        yield Delta(finish="content_filter")

    for text, said in (("", "No."), ("<think>Hm", ""), ("Well", "Well")):
        found = read(deltas(text), MAY, THINKING, refusal="No.")
        assert asyncio.run(collect(found)).text == said
