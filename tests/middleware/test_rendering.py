"""Nouns in, bodies out."""

from __future__ import annotations

import math
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from elision.contract import Alternative, Choice, Completion, Delta, TokenLogprob, Usage
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
