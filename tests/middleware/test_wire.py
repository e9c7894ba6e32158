"""Bodies in, nouns out; nouns in, bodies out."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from elision.contract import Alternative, Choice, Completion, Delta, TokenLogprob, Usage
from elision.errors import RequestError
from elision.middleware.rendering import (
    ChatChunks,
    Head,
    TextChunks,
    chat_completion,
    text_completion,
)
from elision.middleware.wire import parse_chat, parse_completion

CANARY = "zanzibar-7731"
USER = {"role": "user", "content": "Hello!"}
HEAD = Head(id="x-1", created=1, model="m", fingerprint="f")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "top_n_sigma",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "logprobs",
        "top_logprobs",
        "stream",
        "stream_options",
        "echo",
        "best_of",
        "suffix",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "response_format",
        "modalities",
        "audio",
        "web_search_options",
        "elision",
        "continue_final_message",
        "add_generation_prompt",
        "user",
    ]
)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def text(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "Once", **fields}


# --- Laws ----------------------------------------------------------------------------------------


@given(st.dictionaries(FIELDS, JSON, max_size=6), st.booleans())
def test_any_body_is_read_or_refused_with_a_request_error(
    fields: dict[str, Any], valid_base: bool
) -> None:
    for parse, base in ((parse_chat, chat()), (parse_completion, text())):
        with suppress(RequestError):
            parse((base if valid_base else {}) | fields)


@given(JSON)
def test_whatever_is_no_object_is_refused(body: Any) -> None:
    for parse in (parse_chat, parse_completion):
        with pytest.raises(RequestError):
            parse(body if not isinstance(body, dict) else [body])


@given(st.dictionaries(st.text(min_size=1).map("x_".__add__), JSON, max_size=4))
def test_unknown_fields_are_carried_and_known_ones_are_not(extra: dict[str, Any]) -> None:
    known = {"temperature": 1, "stop": "a", "stream": True, "stream_options": {}, "tools": None}

    assert parse_chat(chat(**known, **extra)).request.extra == extra
    assert parse_completion(text(**extra)).request.extra == extra


@given(FIELDS)
def test_null_counts_as_absent(field: str) -> None:
    assume(field not in {"model", "messages", "prompt"})

    read = parse_chat(chat(**{field: None}))
    assert replace(read.request, extra={}) == parse_chat(chat()).request


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


# --- What is refused -----------------------------------------------------------------------------

LONG = "x" * 300
BAD_CHATS: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": [USER]}, "model"),
    (chat(model=""), "model"),
    (chat(model=7), "model"),
    (chat(model=LONG), "model"),
    ({"model": "m"}, "messages"),
    (chat(messages=None), "messages"),
    (chat(messages=[]), "messages"),
    (chat(messages="Hello"), "messages"),
    (chat(messages={"role": "user"}), "messages"),
    (chat(messages=["Hello"]), "messages[0]"),
    (chat(messages=[USER, {"content": CANARY}]), "messages[1].role"),
    (chat(messages=[{"role": CANARY, "content": "a"}]), "messages[0].role"),
    (chat(messages=[{"role": 1, "content": "a"}]), "messages[0].role"),
    (chat(messages=[{"role": ["user"], "content": "a"}]), "messages[0].role"),
    (chat(messages=[{"role": "tool", "content": CANARY}]), "messages[0].role"),
    (chat(messages=[{"role": "user"}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": []}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": ["a"]}]), "messages[0].content[0]"),
    (chat(messages=[{"role": "user", "content": [{}]}]), "messages[0].content[0].type"),
    (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": CANARY}]}]),
        "messages[0].content[0].type",
    ),
    (
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": None}]}]),
        "messages[0].content[0].text",
    ),
    (chat(messages=[USER | {"name": 3}]), "messages[0].name"),
    (chat(messages=[{"role": "user", "content": CANARY + "\ud800"}]), "messages[0].content"),
    (
        chat(messages=[{"role": "assistant", "content": CANARY, "tool_calls": [{"id": "1"}]}]),
        "messages[0].tool_calls",
    ),
    (chat(n=0), "n"),
    (chat(n=17), "n"),
    (chat(n=True), "n"),
    (chat(n=1.0), "n"),
    (chat(n=CANARY), "n"),
    (chat(temperature=-0.1), "temperature"),
    (chat(temperature=2.1), "temperature"),
    (chat(temperature="1"), "temperature"),
    (chat(temperature=False), "temperature"),
    (chat(temperature=math.nan), "temperature"),
    (chat(temperature=math.inf), "temperature"),
    (chat(temperature=10**400), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(top_p=1.01), "top_p"),
    (chat(top_k=-2), "top_k"),
    (chat(top_k=1.5), "top_k"),
    (chat(min_p=1.1), "min_p"),
    (chat(frequency_penalty=2.5), "frequency_penalty"),
    (chat(presence_penalty=[1]), "presence_penalty"),
    (chat(repetition_penalty=0), "repetition_penalty"),
    (chat(repetition_penalty=math.nan), "repetition_penalty"),
    (chat(logit_bias=[1]), "logit_bias"),
    (chat(logit_bias={CANARY: 1}), "logit_bias"),
    (chat(logit_bias={"-1": 1}), "logit_bias"),
    (chat(logit_bias={"01": 1}), "logit_bias"),
    (chat(logit_bias={"²": 1}), "logit_bias"),
    (chat(logit_bias={"9999999999": 1}), "logit_bias"),
    (chat(logit_bias={"1": 101}), "logit_bias"),
    (chat(logit_bias={"1": None}), "logit_bias"),
    (chat(stop=""), "stop"),
    (chat(stop=["a", ""]), "stop[1]"),
    (chat(stop=["a", 1]), "stop[1]"),
    (chat(stop=1), "stop"),
    (chat(stop=["a"] * 17), "stop"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=2.0), "max_tokens"),
    (chat(max_tokens=5, max_completion_tokens=6), "max_completion_tokens"),
    (chat(seed=2**64), "seed"),
    (chat(seed="1"), "seed"),
    (chat(logprobs=5), "logprobs"),
    (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
    (chat(top_logprobs=2), "top_logprobs"),
    (chat(stream="yes"), "stream"),
    (chat(stream_options={"include_usage": True}), "stream_options"),
    (chat(stream=True, stream_options=[]), "stream_options"),
    (chat(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage"),
    (chat(tools=[{"type": "function", "function": {"name": CANARY}}]), "tools"),
    (chat(tool_choice="required"), "tool_choice"),
    (chat(functions=[{"name": CANARY}]), "functions"),
    (chat(function_call={"name": CANARY}), "function_call"),
    (chat(response_format={"type": "json_object"}), "response_format"),
    (chat(response_format=CANARY), "response_format"),
    (chat(modalities=["text", "audio"]), "modalities"),
    (chat(audio={"voice": "x"}), "audio"),
    (chat(web_search_options={}), "web_search_options"),
    (chat(continue_final_message=True), "continue_final_message"),
    (chat(add_generation_prompt=False), "add_generation_prompt"),
    (chat(continue_final_message=True, add_generation_prompt=True), "add_generation_prompt"),
    (chat(elision=[]), "elision"),
    (chat(elision={"profil": CANARY}), "elision"),
    (chat(elision={CANARY: 1}), "elision"),
    (chat(elision={"report": "yes"}), "elision.report"),
    (chat(elision={"profile": 1}), "elision.profile"),
    (chat(elision={"tenant": ""}), "elision.tenant"),
    (chat(elision={"rng": CANARY}), "elision.rng"),
    (chat(elision={"timeout_s": 0}), "elision.timeout_s"),
]
BAD_TEXTS: list[tuple[dict[str, Any], str | None]] = [
    ({"model": "m"}, "prompt"),
    (text(prompt=None), "prompt"),
    (text(prompt=""), "prompt"),
    (text(prompt=[]), "prompt"),
    (text(prompt=5), "prompt"),
    (text(prompt=[CANARY, 5]), "prompt[1]"),
    (text(prompt=[5, CANARY]), "prompt"),
    (text(prompt=[-1]), "prompt"),
    (text(prompt=[True]), "prompt[0]"),
    (text(prompt=[2**31]), "prompt"),
    (text(prompt=[[1], []]), "prompt[1]"),
    (text(prompt=[[1.5]]), "prompt[0]"),
    (text(prompt=["a"] * 257), "prompt"),
    (text(suffix=CANARY), "suffix"),
    (text(best_of=2), "best_of"),
    (text(best_of=0), "best_of"),
    (text(echo="yes"), "echo"),
    (text(logprobs=True), "logprobs"),
    (text(logprobs=21), "logprobs"),
    (text(max_tokens=-1), "max_tokens"),
]


@pytest.mark.parametrize(("body", "param"), BAD_CHATS)
def test_a_bad_chat_is_refused_naming_the_field_and_repeating_nothing(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_chat(body)

    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.code is not None
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(("body", "param"), BAD_TEXTS)
def test_a_bad_completion_is_refused_naming_the_field_and_repeating_nothing(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_completion(body)

    assert (caught.value.status, caught.value.param) == (400, param)
    assert CANARY not in str(caught.value)


# --- What is read --------------------------------------------------------------------------------


def test_every_field_of_a_chat_arrives() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"},
        {"role": "assistant", "content": "Well,"},
    ]
    parsed = parse_chat(
        chat(
            model="m@plain",
            messages=messages,
            continue_final_message=True,
            temperature=0.5,
            top_p=0.9,
            top_k=-1,
            min_p=0.1,
            top_n_sigma=1.5,
            frequency_penalty=-1,
            presence_penalty=1,
            repetition_penalty=1.2,
            logit_bias={"7": -100, "0": 2.5},
            stop=["a", "b"],
            max_completion_tokens=9,
            seed=-5,
            n=3,
            logprobs=True,
            top_logprobs=4,
            stream=True,
            stream_options={"include_usage": True},
            user="ann",
            elision={"profile": "plain", "report": True, "rng": "torch", "timeout_s": 2},
        )
    )
    request, sampling = parsed.request, parsed.request.sampling

    assert (parsed.stream, parsed.include_usage, parsed.report) == (True, True, True)
    assert (request.kind, request.model, request.messages) == ("chat", "m@plain", tuple(messages))
    assert (request.continue_final, request.max_tokens, request.stop) == (True, 9, ("a", "b"))
    assert (request.n, request.logprobs, request.timeout_s) == (3, 4, 2)
    assert request.extra == {"user": "ann"}
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 0)
    assert (sampling.min_p, sampling.top_n_sigma, sampling.seed) == (0.1, 1.5, -5)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (-1, 1)
    assert (sampling.repetition_penalty, sampling.rng) == (1.2, "torch")
    assert sampling.logit_bias == {7: -100.0, 0: 2.5}


def test_what_is_left_out_is_left_to_the_profile() -> None:
    sampling = parse_chat(chat()).request.sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (None, None, None)
    assert parse_chat(chat()).request.max_tokens is None
    assert parse_chat(chat()).request.logprobs is None


def test_log_probabilities_without_alternatives_are_not_none() -> None:
    assert parse_chat(chat(logprobs=True)).request.logprobs == 0
    assert parse_completion(text(logprobs=0)).request.logprobs == 0


def test_harmless_forms_of_unsupported_fields_pass() -> None:
    parse_chat(
        chat(
            tools=[],
            tool_choice="none",
            functions=[],
            function_call="auto",
            response_format={"type": "text"},
            modalities=["text"],
        )
    )
    parse_completion(text(suffix="", n=2, best_of=2))


def test_equal_token_limits_under_both_names_pass() -> None:
    read = parse_chat(chat(max_tokens=5, max_completion_tokens=5))

    assert read.request.max_tokens == 5


@pytest.mark.parametrize(
    ("prompt", "want"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_each_prompt_becomes_a_request(prompt: Any, want: tuple[Any, ...]) -> None:
    parsed = parse_completion(text(prompt=prompt, echo=True, n=2))

    assert tuple(request.prompt for request in parsed.requests) == want
    assert all((r.kind, r.echo, r.n) == ("text", True, 2) for r in parsed.requests)


def test_a_completion_without_a_limit_stops_at_sixteen_tokens_as_openai_does() -> None:
    assert parse_completion(text()).request.max_tokens == 16


# --- What is written -----------------------------------------------------------------------------

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
