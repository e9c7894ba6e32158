"""What holds of every response: its types, its stream, its twin among chats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from elision.contract import Alternative, Delta, TokenLogprob, Usage, collect
from elision.middleware.gateway.errors import failure_of
from elision.middleware.gateway.responses.asked import read_asked
from elision.middleware.gateway.responses.conversation import Messages
from elision.middleware.gateway.responses.items import Placed
from elision.middleware.gateway.responses.writing import OURS, Writing, new_head
from elision.middleware.rendering import Head, chat_completion
from elision.middleware.wire import parse_chat

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WHOLE: TypeAdapter[Any] = TypeAdapter(Response)
TOLD = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
HEAD = Head(id="c", created=0, model="m", fingerprint="f")

texts = st.text('ab {}"\\é', min_size=1, max_size=6)
pieces = st.one_of(
    texts.map(lambda text: Delta(text=text)),
    texts.map(lambda text: Delta(message={"reasoning_content": text})),
    texts.map(lambda text: Delta(message={"reasoning": text, "reasoning_content": text})),
    texts.map(lambda text: Delta(message={"refusal": text})),
    st.tuples(st.integers(0, 2), texts).map(
        lambda pair: Delta(
            message={"tool_calls": [{"index": pair[0], "function": {"arguments": pair[1]}}]}
        )
    ),
    texts.map(
        lambda text: Delta(
            text=text,
            logprobs=(TokenLogprob(text, -1.0, text.encode(), (Alternative("x", -2.0, b"x"),)),),
        )
    ),
)
endings = st.sampled_from(["stop", "length", "content_filter", "tool_calls"])


def told(said: Sequence[Delta], finish: Any) -> list[Delta]:
    """Return a reply: every call is named before its arguments, and the end is told."""
    named: set[int] = set()
    deltas: list[Delta] = []
    for delta in said:
        for call in delta.message.get("tool_calls", ()):
            if call["index"] not in named:
                named.add(call["index"])
                entry = {
                    "index": call["index"], "id": f"call_{call['index']}", "type": "function",
                    "function": {"name": f"f{call['index']}", "arguments": ""},
                }  # fmt: skip
                deltas.append(Delta(message={"tool_calls": [entry]}))
        deltas.append(delta)
    counted = Usage(
        prompt_tokens=7,
        completion_tokens=len(said),
        cached_tokens=2,
        extra={"completion_tokens_details": {"reasoning_tokens": 1}},
    )
    return [*deltas, Delta(finish=finish), Delta(usage=counted, report={"epoch": 0})]


replies = st.builds(told, st.lists(pieces, max_size=12), endings)


def written(deltas: Sequence[Delta]) -> list[dict[str, Any]]:
    writing = Writing(new_head("m", TOLD, report=False))
    return [event for delta in deltas for event in writing.of(delta)] + writing.tail()


async def _each(deltas: Sequence[Delta]) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


def chat(deltas: Sequence[Delta]) -> dict[str, Any]:
    completion = asyncio.run(collect(_each(deltas)))
    return chat_completion(HEAD, completion, logprobs=True)


def joined(events: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Put a stream together as a client does that looks at deltas alone."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        item = found.get(event.get("output_index", -1))
        match event["type"]:
            case "response.output_item.added":
                found[event["output_index"]] = {"type": event["item"]["type"], "parts": {}}
            case "response.function_call_arguments.delta":
                assert item is not None
                item["arguments"] = item.get("arguments", "") + event["delta"]
            case kind if kind.endswith(".delta"):
                assert item is not None
                parts, n = item["parts"], event["content_index"]
                parts[n] = parts.get(n, "") + event["delta"]
    return found


def whole(response: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for n, item in enumerate(response["output"]):
        said = [p.get("text", p.get("refusal")) for p in item.get("content", ())]
        found[n] = {"type": item["type"], "parts": {k: text for k, text in enumerate(said) if text}}
        if item.get("arguments"):
            found[n]["arguments"] = item["arguments"]
    return found


@given(replies)
def test_every_event_and_object_is_of_the_clients_own_types(deltas: list[Delta]) -> None:
    events = written(deltas)

    for number, event in enumerate(events):
        assert EVENTS.validate_python(event, strict=False).type == event["type"]
        assert event["sequence_number"] == number
    assert WHOLE.validate_python(events[-1]["response"]).status in {"completed", "incomplete"}


@given(replies)
def test_a_joined_stream_is_the_whole_response(deltas: list[Delta]) -> None:
    events = written(deltas)
    response = events[-1]["response"]

    assert joined(events) == whole(response)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response["output"]
    added = [e["output_index"] for e in events if e["type"] == "response.output_item.added"]
    assert sorted(added) == [*range(len(done))]


@given(replies)
def test_an_item_begins_goes_on_and_ends_once_each_in_this_order(deltas: list[Delta]) -> None:
    events = written(deltas)
    assert [e["type"] for e in events[:2]] == ["response.created", "response.in_progress"]
    for at in {e["output_index"] for e in events if "output_index" in e}:
        kinds = [e["type"] for e in events if e.get("output_index") == at]
        assert kinds[0] == "response.output_item.added"
        assert kinds[-1] == "response.output_item.done"
        assert kinds.count("response.output_item.done") == 1
        last_delta = max((n for n, k in enumerate(kinds) if k.endswith(".delta")), default=0)
        first_done = min(n for n, k in enumerate(kinds) if k.endswith(".done"))
        assert last_delta < first_done


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@given(replies)
def test_a_response_says_calls_and_counts_what_its_twin_among_chats_does(
    deltas: list[Delta],
) -> None:
    response, twin = written(deltas)[-1]["response"], chat(deltas)
    choice, message = twin["choices"][0], twin["choices"][0]["message"]
    items, parsed = response["output"], WHOLE.validate_python(response)

    assert parsed.output_text == (message["content"] or "")
    calls = [
        {"id": i["call_id"], "type": "function",
         "function": {"name": i["name"], "arguments": i["arguments"]}}
        for i in items if i["type"] == "function_call"
    ]  # fmt: skip
    if choice["finish_reason"] == "content_filter":
        # A chat leaves out what a refusal cut off; a response tells it as its stream has told it.
        calls = [call for call in calls if is_object(call["function"]["arguments"])]
    assert sorted(calls, key=str) == sorted(message.get("tool_calls", []), key=str)
    thoughts = "".join(p["text"] for i in items if i["type"] == "reasoning" for p in i["content"])
    both = (message.get("reasoning_content", ""), message.get("reasoning", ""))
    assert thoughts in both
    assert response["usage"]["input_tokens"] == twin["usage"]["prompt_tokens"]
    assert response["usage"]["output_tokens"] == twin["usage"]["completion_tokens"]
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 1
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 2
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}
    wanted = reason.get(choice["finish_reason"])
    assert response["incomplete_details"] == (None if wanted is None else {"reason": wanted})
    told = [e for i in items if i["type"] == "message" for p in i["content"]
            for e in p.get("logprobs", ())]  # fmt: skip
    assert told == choice["logprobs"]["content"]


@given(st.lists(texts, min_size=1, max_size=8), st.data())
def test_however_a_reply_is_cut_the_response_is_the_same(said: list[str], data: Any) -> None:
    text = "".join(said)
    places = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    cut = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    ways = [
        written(told([Delta(text=piece) for piece in some if piece], "stop"))[-1]["response"]
        for some in (said, cut)
    ]
    assert [whole(response) for response in ways] == [whole(ways[0])] * 2


@given(st.lists(pieces, max_size=6))
def test_a_reply_that_breaks_ends_with_an_error_of_the_clients_types(said: list[Delta]) -> None:
    writing = Writing(new_head("m", TOLD, report=False))
    for delta in told(said, "stop")[:-2]:
        writing.of(delta)
    events = writing.failed(failure_of(RuntimeError("secret")))

    assert [event["type"] for event in events] == ["error", "response.failed"]
    for event in events:
        assert EVENTS.validate_python(event).type == event["type"]
    assert WHOLE.validate_python(events[-1]["response"]).status == "failed"
    assert "secret" not in str(events)


def test_no_field_of_a_response_can_be_taken_by_an_upstreams() -> None:
    assert set(Response.model_fields) <= OURS


# --- twins among requests ------------------------------------------------------------------------

names = st.sampled_from(["find", "add_up"])
arguments = st.sampled_from(["{}", '{"a": 1}'])
TOOL = {"name": "find", "description": "d", "parameters": {"type": "object"}, "strict": True}


def _twin_of_tools(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {k: v for k, v in flat.items() if k != "type"}}


turns = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["user", "system", "developer"]), texts),
        st.tuples(st.just("assistant"), texts),
        st.tuples(st.just("calls"), st.lists(st.tuples(names, arguments), min_size=1, max_size=2)),
    ),
    min_size=1,
    max_size=5,
)


def bodies_of(said: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the input of a response, and a chat's messages, that say the same."""
    items: list[Any] = []
    messages: list[Any] = []
    for n, (who, what) in enumerate(said):
        if who != "calls":
            items.append({"role": who, "content": what})
            messages.append({"role": who, "content": what})
            continue
        ids = [f"c{n}{k}" for k in range(len(what))]
        items.append({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "xyz"})
        items += [
            {"type": "function_call", "call_id": i, "name": name, "arguments": given_}
            for i, (name, given_) in zip(ids, what, strict=True)
        ]
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        messages[-1]["tool_calls"] = messages[-1].get("tool_calls", []) + [
            {"id": i, "type": "function", "function": {"name": name, "arguments": given_}}
            for i, (name, given_) in zip(ids, what, strict=True)
        ]
        for i in ids:
            items.append({"type": "function_call_output", "call_id": i, "output": "42"})
            messages.append({"role": "tool", "tool_call_id": i, "content": "42"})
    return items, messages


@given(
    turns,
    st.none() | texts,
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0.1, 1),
            "top_k": st.integers(0, 9),
            "seed": st.integers(0, 9),
            "stop": texts,
            "user": st.just("u"),
            "safety_identifier": st.just("s"),
            "prompt_cache_key": st.just("k"),
            "elision": st.just({"report": True, "profile": "plain"}),
            "never_heard_of": st.just({"a": [1]}),
            "stream": st.booleans(),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "max_output_tokens": st.integers(1, 9),
            "top_logprobs": st.integers(1, 3),
            "reasoning": st.just({"effort": "low", "summary": "auto"}),
            "text": st.sampled_from([
                {"format": {"type": "json_object"}, "verbosity": "low"},
                {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"},
                            "strict": True}},
            ]),
            "tool_choice": st.sampled_from(
                ["required", "none", {"type": "function", "name": "find"}]
            ),
        },
    ),
)  # fmt: skip
def test_a_body_asks_for_what_its_twin_among_chats_asks_for(
    said: list[Any], instructions: str | None, both: dict[str, Any], ours: dict[str, Any]
) -> None:
    items, messages = bodies_of(said)
    tools = [{"type": "function", **TOOL}]
    body = {"model": "m", "input": items, "tools": tools, "instructions": instructions}
    asked = read_asked(body | both | ours)
    read = Messages()
    if asked.instructions is not None:
        read.instruct(asked.instructions)
    read.extend([one for one in asked.items if isinstance(one, Placed)])
    mine = parse_chat({**asked.chat, "messages": read.made})

    before = [{"role": "system", "content": instructions}] if instructions is not None else []
    theirs: dict[str, Any] = {"model": "m", "messages": before + messages, **both}
    theirs["tools"] = [_twin_of_tools(tool) for tool in tools]
    if (choice := ours.get("tool_choice")) is not None:
        theirs["tool_choice"] = choice if isinstance(choice, str) else _twin_of_tools(choice)
    theirs["max_completion_tokens"] = ours.get("max_output_tokens")
    if "top_logprobs" in ours:
        theirs |= {"logprobs": True, "top_logprobs": ours["top_logprobs"]}
    if "reasoning" in ours:
        theirs["reasoning_effort"] = "low"
    if (text := ours.get("text")) is not None:
        wanted = dict(text["format"])
        kind = wanted.pop("type")
        theirs["response_format"] = {"type": kind} | ({"json_schema": wanted} if wanted else {})
        theirs |= {"verbosity": text["verbosity"]} if "verbosity" in text else {}
    twin = parse_chat(theirs)

    assert mine.request == twin.request
    assert mine.request.user_text == twin.request.user_text
    assert mine.stream == twin.stream
