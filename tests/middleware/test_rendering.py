"""Nouns in, bodies out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from elision.contract import (
    Alternative,
    Choice,
    Completion,
    Delta,
    TokenLogprob,
    Usage,
    collect,
)
from elision.middleware.rendering import (
    ChatChunks,
    Head,
    TextChunks,
    chat_completion,
    text_completion,
)

HEAD = Head(id="x-1", created=1, model="m", fingerprint="f")


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=4)), max_size=12))
def test_the_chunks_of_a_reply_spell_the_whole_reply(pieces: list[tuple[int, str]]) -> None:
    deltas = [Delta(choice=choice, text=piece) for choice, piece in pieces]
    for kind, read in ((ChatChunks, _chat_text), (TextChunks, _completion_text)):
        chunks = kind(HEAD)
        spoken = [c for delta in deltas for c in chunks.of(delta)] + chunks.tail()
        for choice in range(3):
            assert read(spoken, choice) == "".join(t for c, t in pieces if c == choice)


def _chat_text(chunks: list[dict[str, Any]], index: int) -> str:
    parsed = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    choices = [choice for chunk in parsed for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def _completion_text(chunks: list[dict[str, Any]], index: int) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["text"] for choice in choices if choice["index"] == index)


# --- A stream put together is the whole reply ----------------------------------------------------


WORDS = st.text(max_size=4)
KINDS = ("text", "refusal", "reasoning_content", "x_note", "opens", "goes on", "calls")


@st.composite
def replies(draw: st.DrawFn) -> list[Delta]:
    """Draw a whole reply in pieces: one choice or two, whatever OpenAI's wire may say of each."""
    deltas = []
    for choice in range(draw(st.integers(1, 2))):
        n_open = 0
        for kind in draw(st.lists(st.sampled_from(KINDS), max_size=7)):
            message: dict[str, Any] = {}
            if kind == "opens":
                function = {"name": draw(WORDS), "arguments": draw(WORDS)}
                call = {"index": n_open, "id": f"c{n_open}", "type": "function"}
                message = {"tool_calls": [call | {"function": function}]}
                n_open += 1
            elif kind == "goes on" and n_open:
                call = {"index": n_open - 1, "function": {"arguments": draw(WORDS)}}
                message = {"tool_calls": [call]}
            elif kind == "calls":
                message = {"function_call": {"name": "f", "arguments": draw(WORDS)}}
            elif kind not in {"text", "goes on"}:
                message = {kind: draw(WORDS)}
            said = draw(WORDS) if kind == "text" or draw(st.booleans()) else ""
            item = TokenLogprob(said, -0.5, said.encode())
            logprobs = (item,) if said and draw(st.booleans()) else ()
            deltas.append(Delta(choice=choice, text=said, message=message, logprobs=logprobs))
        finish = "tool_calls" if n_open else "stop"
        deltas.append(Delta(choice=choice, finish=finish, extra={"stop_reason": 7}))
    usage = Usage(prompt_tokens=3, completion_tokens=2, extra={"x_details": {"seen": 1}})
    return [*deltas, Delta(usage=usage, extra={"service_tier": "flex"}, report={"n": 1})]


def streamed(deltas: Sequence[Delta], head: Head) -> Any:
    """Return what openai-python makes of the stream."""
    chunks, state = ChatChunks(head), ChatCompletionStreamState()
    spoken = [chunk for delta in deltas for chunk in chunks.of(delta)] + chunks.tail()
    for chunk in spoken:
        read = orjson.loads(orjson.dumps(chunk))
        state.handle_chunk(ChatCompletionChunk.model_validate(read))
    return state.current_completion_snapshot


def whole(deltas: Sequence[Delta], head: Head) -> ChatCompletion:
    """Return what openai-python makes of the reply that is not streamed."""

    async def stream() -> AsyncIterator[Delta]:
        for delta in deltas:
            yield delta

    body = chat_completion(head, asyncio.run(collect(stream())), logprobs=True)
    return ChatCompletion.model_validate(orjson.loads(orjson.dumps(body)))


def _plain(message: Any) -> dict[str, Any]:
    """Return what was said: a client fills in nulls, and an opening says a content of nothing."""
    said = {key: value for key, value in message.to_dict().items() if value is not None}
    for call in said.get("tool_calls", ()):
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    return said if said.get("content") else said | {"content": None}


@given(replies())
def test_a_stream_put_together_by_openais_client_is_the_whole_reply(deltas: list[Delta]) -> None:
    head = Head(id="x-1", created=1, model="m", fingerprint="f", usage=True)
    one, other = streamed(deltas, head), whole(deltas, head)

    assert len(one.choices) == len(other.choices)
    for pieced, at_once in zip(one.choices, other.choices, strict=True):
        assert _plain(pieced.message) == _plain(at_once.message)
        assert pieced.finish_reason == at_once.finish_reason
        entries = pieced.logprobs.content if pieced.logprobs else []
        assert at_once.logprobs is not None
        assert entries == at_once.logprobs.content
    assert one.usage.to_dict() == other.usage.to_dict()  # type: ignore[union-attr]


@given(replies())
def test_every_further_field_of_a_choice_and_a_reply_is_told_either_way(
    deltas: list[Delta],
) -> None:
    head = Head(id="x-1", created=1, model="m", fingerprint="f", usage=True)
    chunks = ChatChunks(head)
    spoken = [chunk for delta in deltas for chunk in chunks.of(delta)]
    (tail,) = chunks.tail()

    body = whole(deltas, head)
    assert [c["choices"][0]["stop_reason"] for c in spoken if _ends(c)] == [7] * len(body.choices)
    assert [choice.to_dict()["stop_reason"] for choice in body.choices] == [7] * len(body.choices)
    assert (tail["service_tier"], body.service_tier) == ("flex", "flex")


def _ends(chunk: dict[str, Any]) -> bool:
    return chunk["choices"][0]["finish_reason"] is not None


CALL = {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "text", "content"),
    [
        ({"tool_calls": [CALL]}, "", None),
        ({"tool_calls": [CALL]}, "Let me see.", "Let me see."),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "", None),
        ({"refusal": "No."}, "", None),
        ({"reasoning_content": "Hm."}, "", None),
        ({"reasoning_content": None, "tool_calls": []}, "", ""),
        ({}, "", ""),
    ],
)
def test_content_is_null_where_only_something_else_is_said(
    message: dict[str, Any], text: str, content: str | None
) -> None:
    deltas = [Delta(text=text, message=message), Delta(finish="stop"), Delta(usage=Usage())]
    body = whole(deltas, HEAD)

    assert body.choices[0].message.content == content
    assert _plain(streamed(deltas, HEAD).choices[0].message)["content"] == (content or None)


def test_only_pieces_number_their_calls() -> None:
    completion = Completion(choices=(Choice(message={"tool_calls": [CALL]}),))
    (choice,) = chat_completion(HEAD, completion, logprobs=False)["choices"]

    bare = {key: value for key, value in CALL.items() if key != "index"}
    assert choice["message"]["tool_calls"] == [bare]


@pytest.mark.parametrize("text", ["So.", ""])
@pytest.mark.parametrize("cut", ["", '{"a": "b', "[1]", '{"a": 1} and'])
def test_a_call_that_a_refusal_cut_off_is_left_out(cut: str, text: str) -> None:
    def said(finish: Any, *arguments: str) -> Any:
        calls = [
            {
                "index": n,
                "id": f"c{n}",
                "type": "function",
                "function": {"name": "f", "arguments": one},
            }
            for n, one in enumerate(arguments)
        ]
        message = {"tool_calls": calls, "function_call": {"name": "f", "arguments": cut}}
        choice = Choice(text=text, message=message, finish=finish)
        completion = Completion(choices=(choice,))
        return chat_completion(HEAD, completion, logprobs=False)["choices"][0]["message"]

    (kept,) = said("content_filter", '{"a": 1}', cut)["tool_calls"]
    assert kept["id"] == "c0"
    refused = said("content_filter", cut)
    assert refused == {"role": "assistant", "content": text, "refusal": None}
    assert len(said("length", cut, cut)["tool_calls"]) == 2


def test_no_field_of_an_upstream_replaces_one_of_ours() -> None:
    ours = {"index": 5, "finish_reason": "x", "delta": "x", "message": "x", "text": "x"}
    reply = {"id": "x", "model": "x", "object": "x", "choices": "x", "usage": "x", "created": "x"}
    deltas = [Delta(text="a", extra=ours, finish="stop"), Delta(usage=Usage(), extra=reply)]
    head = Head(id="x-1", created=1, model="m", fingerprint="f", usage=True)

    for body in (streamed(deltas, head), whole(deltas, head)):
        assert (body.id, body.created, body.model) == ("x-1", 1, "m")
        assert body.usage.total_tokens == 0
        assert body.choices[0].index == 0
        assert body.choices[0].message.content == "a"


# --- Bodies --------------------------------------------------------------------------------------


TOKENS = (
    TokenLogprob("Hé", -0.25, b"H\xc3\xa9", (Alternative("Ho", -1.5, b"Ho"),)),
    TokenLogprob("!", -math.inf, b"!", ()),
)
COMPLETION = Completion(
    choices=(Choice(index=0, text="Hé!", finish="length", logprobs=TOKENS),),
    usage=Usage(prompt_tokens=3, completion_tokens=2),
    report={"profile": "guarded"},
)


def test_a_chat_reply_is_openais_object() -> None:
    body = orjson.loads(orjson.dumps(chat_completion(HEAD, COMPLETION, logprobs=True)))
    parsed = ChatCompletion.model_validate(body, strict=True)

    assert body["object"] == "chat.completion"
    assert "elision" not in body
    assert parsed.choices[0].message.content == "Hé!"
    assert parsed.choices[0].finish_reason == "length"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert body["choices"][0]["logprobs"]["content"] == [
        {
            "token": "Hé",
            "logprob": -0.25,
            "bytes": [72, 195, 169],
            "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}],
        },
        {"token": "!", "logprob": -9999.0, "bytes": [33], "top_logprobs": []},
    ]


def test_a_text_reply_is_openais_object() -> None:
    body = orjson.loads(orjson.dumps(text_completion(HEAD, COMPLETION, logprobs=True)))
    OpenAICompletion.model_validate(body, strict=True)

    assert body["object"] == "text_completion"
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["Hé", "!"],
        "token_logprobs": [-0.25, -9999.0],
        "top_logprobs": [{"Hé": -0.25, "Ho": -1.5}, {"!": -9999.0}],
        "text_offset": [0, 2],
    }


def test_log_probabilities_stay_out_unless_asked_for() -> None:
    assert chat_completion(HEAD, COMPLETION, logprobs=False)["choices"][0]["logprobs"] is None
    assert text_completion(HEAD, COMPLETION, logprobs=False)["choices"][0]["logprobs"] is None


def test_a_prompts_first_token_has_null() -> None:
    first = Choice(text="a", logprobs=(TokenLogprob("a", math.nan, b"a"),))
    body = text_completion(HEAD, Completion(choices=(first,)), logprobs=True)

    assert body["choices"][0]["logprobs"]["token_logprobs"] == [None]
    assert body["choices"][0]["logprobs"]["top_logprobs"] == [None]


def test_offsets_go_on_from_chunk_to_chunk() -> None:
    chunks = TextChunks(HEAD)
    first, second = (chunks.of(Delta(text=t.token, logprobs=(t,)))[0] for t in TOKENS)

    assert first["choices"][0]["logprobs"]["text_offset"] == [0]
    assert second["choices"][0]["logprobs"]["text_offset"] == [2]


def test_a_chat_stream_opens_with_the_role_and_closes_with_the_reason() -> None:
    chunks = ChatChunks(HEAD)
    spoken = [*chunks.of(Delta(text="Hi")), *chunks.of(Delta(finish="stop")), *chunks.tail()]
    choices = [chunk["choices"][0] for chunk in spoken]

    assert [c["delta"].get("role") for c in choices] == ["assistant", None, None]
    assert [c["delta"].get("content") for c in choices] == ["", "Hi", None]
    assert [c["finish_reason"] for c in choices] == [None, None, "stop"]
    assert {(c["id"], c["created"], c["model"]) for c in spoken} == {("x-1", 1, "m")}
    assert all("usage" not in chunk for chunk in spoken)


def test_usage_and_report_follow_in_a_chunk_without_choices() -> None:
    head = Head(id="x", created=1, model="m", fingerprint="f", usage=True, report=True)
    for chunks in (ChatChunks(head), TextChunks(head)):
        (piece,) = chunks.of(Delta(text="a", finish="stop"))[-1:]
        last = Delta(usage=Usage(prompt_tokens=1, completion_tokens=1), report={"epoch": 4})

        assert chunks.of(last) == []
        (tail,) = chunks.tail()
        assert (piece["usage"], tail["choices"]) == (None, [])
        assert tail["usage"]["total_tokens"] == 2
        assert tail["elision"] == {"epoch": 4}


@pytest.mark.parametrize("kind", [ChatChunks, TextChunks])
def test_fields_of_the_whole_reply_are_told_without_usage_too(kind: type[Any]) -> None:
    chunks = kind(HEAD)
    chunks.of(Delta(text="Hi", finish="stop"))
    chunks.of(Delta(usage=Usage(), report={}, extra={"citations": ["a"]}))
    (last,) = chunks.tail()
    model = ChatCompletionChunk if kind is ChatChunks else OpenAICompletion

    assert last["citations"] == ["a"]
    assert len(last["choices"]) == 1, "who did not ask for a chunk without choices gets none"
    if kind is ChatChunks:
        assert model.model_validate(last).choices[0].finish_reason is None


@pytest.mark.parametrize("kind", [ChatChunks, TextChunks])
def test_no_engine_speaks_as_our_report(kind: type[Any]) -> None:
    spoken = {"elision": {"guard_form": "none"}}
    deltas = [Delta(text="Hi", finish="stop", extra=spoken), Delta(usage=Usage(), extra=spoken)]
    chunks = kind(HEAD)
    streamed = [chunk for delta in deltas for chunk in chunks.of(delta)] + chunks.tail()
    choice = Choice(index=0, text="Hi", finish="stop", extra=spoken)
    completion = Completion(choices=(choice,), usage=Usage(), report={}, extra=spoken)
    whole = [
        render(HEAD, completion, logprobs=False) for render in (chat_completion, text_completion)
    ]

    assert "guard_form" not in repr([streamed, whole])
