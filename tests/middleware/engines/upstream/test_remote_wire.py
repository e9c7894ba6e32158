from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParams

from elision.contract import Delta, Request, Sampling, Usage
from elision.errors import CapabilityError, RequestError, UpstreamError
from elision.middleware.engines.upstream.wire import ReplyReader, body_of, check

ASK = ({"role": "user", "content": "Who?"},)
BEYOND_OPENAI = {"top_k", "min_p", "repetition_penalty"}
FULL = Sampling(
    temperature=0.0,
    top_p=0.9,
    top_k=0,
    min_p=0.1,
    frequency_penalty=0.5,
    presence_penalty=-0.5,
    repetition_penalty=1.1,
    logit_bias={7: -100.0},
    seed=0,
)


def body(request: Request, **options: Any) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(body_of(request, model="up", **options))
    return sent


def chat(**choice: Any) -> bytes:
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


def read(*events: bytes, n: int = 1, kind: Any = "chat") -> list[Delta]:
    reader = ReplyReader(Request(kind=kind, n=n))
    deltas = [delta for event in events for delta in reader.read(event)]
    return [*deltas, reader.last(engine="up")]


# --- What goes out -------------------------------------------------------------------------------


def test_a_bare_request_sends_what_it_must_and_no_more() -> None:
    assert body(Request(messages=ASK, model="alias@guarded")) == {
        "model": "up",
        "messages": [{"role": "user", "content": "Who?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_field_of_a_full_request_is_one_of_openais_or_a_known_extension() -> None:
    common: dict[str, Any] = {"sampling": FULL, "max_tokens": 5, "stop": ("a", "b"), "n": 2}
    chat_body = body(Request(messages=ASK, **common))
    text_body = body(Request(kind="text", prompt="Once", echo=True, **common))
    known = BEYOND_OPENAI | {"stream"}
    assert chat_body.keys() <= ChatParams.__annotations__.keys() | known
    assert text_body.keys() <= TextParams.__annotations__.keys() | known
    assert chat_body.keys() ^ text_body.keys() == {"messages", "prompt", "echo"}


def test_values_that_are_zero_on_purpose_are_sent() -> None:
    sent = body(Request(messages=ASK, sampling=FULL))
    assert (sent["temperature"], sent["top_k"], sent["seed"]) == (0, 0, 0)
    assert sent["logit_bias"] == {"7": -100.0}


def test_the_bound_of_the_reply_goes_by_the_name_the_upstream_knows() -> None:
    request = Request(messages=ASK, max_tokens=5)
    assert body(request)["max_tokens"] == 5
    newer = body(request, length_field="max_completion_tokens")
    assert newer["max_completion_tokens"] == 5
    assert "max_tokens" not in newer


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text("xyz_", min_size=1), json_values, max_size=4))
def test_unknown_fields_travel_untouched(extra: dict[str, Any]) -> None:
    sent = body(Request(messages=ASK, extra=extra))
    assert {name: sent[name] for name in extra} == extra


def test_our_own_object_and_our_own_fields_never_travel_as_extras() -> None:
    extra = {"elision": {"profile": "p"}, "stream": False, "model": "other", "n": 9, "user": "u"}
    sent = body(Request(messages=ASK, extra=extra, options={"profile": "p"}))
    assert sent == body(Request(messages=ASK)) | {"user": "u"}


def test_frozen_mappings_anywhere_are_sent_as_objects() -> None:
    part: Mapping[str, Any] = MappingProxyType({"type": "text", "text": "Who?"})
    message = MappingProxyType({"role": "user", "content": (part,)})
    assert body(Request(messages=(message,)))["messages"][0]["content"] == [dict(part)]


def test_what_json_cannot_carry_is_the_callers_fault_and_is_not_quoted() -> None:
    for value in ("Voldemort\ud83d", object()):
        with pytest.raises(RequestError) as caught:
            body_of(Request(messages=ASK, extra={"user": value}), model="up")
        assert "Voldemort" not in repr(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request(logprobs=0), "logprobs"),
        (Request(kind="text", prompt=(1, 2)), "prompt"),
        (Request(continue_final=True), "continue_final_message"),
        (Request(sampling=Sampling(top_n_sigma=1.0)), "top_n_sigma"),
        (Request(sampling=Sampling(rng="torch")), "rng"),
        (Request(extra={"tools": [{}]}), "tools"),
        (Request(extra={"functions": [{}]}), "functions"),
        (Request(extra={"logprobs": True}), "logprobs"),
        (Request(extra={"top_logprobs": 2}), "top_logprobs"),
        (Request(extra={"audio": {"voice": "x"}}), "audio"),
    ],
)
def test_what_cannot_be_served_under_guard_is_refused_by_name(
    request_: Request, param: str
) -> None:
    with pytest.raises(CapabilityError) as caught:
        check(request_, engine="up")
    assert (caught.value.status, caught.value.param) == (400, param)


def test_an_ordinary_request_passes() -> None:
    check(Request(messages=ASK, extra={"tools": None, "user": "u"}), engine="up")
    check(Request(kind="text", prompt="Once", sampling=FULL), engine="up")


# --- What comes back -----------------------------------------------------------------------------


def test_a_reply_is_its_deltas_then_usage() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert read(
        chat(index=0, delta={"role": "assistant", "content": ""}),
        chat(index=0, delta={"content": "Hel"}),
        chat(index=0, delta={"content": "lo"}, finish_reason="stop"),
        usage.encode(),
        b"[DONE]",
    ) == [
        Delta(text="Hel"),
        Delta(text="lo", finish="stop"),
        Delta(
            usage=Usage(prompt_tokens=3, completion_tokens=2),
            report={"engine": "up", "usage_from_upstream": True},
        ),
    ]


def test_a_raw_completion_is_read_from_text() -> None:
    event = json.dumps({"choices": [{"index": 0, "text": "Hi", "finish_reason": "length"}]})
    assert read(event.encode(), kind="text")[0] == Delta(text="Hi", finish="length")


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": None}, {"prompt_tokens": -1}])
def test_usage_that_is_missing_counts_as_nothing(usage: Any) -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    assert read(json.dumps(end).encode())[-1].usage == Usage()


def test_a_refusal_is_text_like_any_other() -> None:
    deltas = read(chat(index=0, delta={"refusal": "I cannot"}, finish_reason="stop"))
    assert deltas[0].text == "I cannot"


def test_reasoning_is_not_part_of_the_reply() -> None:
    deltas = read(
        chat(index=0, delta={"reasoning_content": "hm", "reasoning": "hm"}),
        chat(index=0, delta={"content": "So"}, finish_reason="stop"),
    )
    assert [delta.text for delta in deltas] == ["So", ""]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
        ("model_length", "length"),
        ("repetition", "length"),
    ],
)
def test_reasons_to_end_are_openais(said: str, meant: str) -> None:
    assert read(chat(index=0, delta={}, finish_reason=said))[0].finish == meant


@pytest.mark.parametrize("said", ["tool_calls", "function_call", "abort", "error", "because", 3])
def test_other_reasons_to_end_are_errors(said: Any) -> None:
    with pytest.raises(UpstreamError):
        read(chat(index=0, delta={}, finish_reason=said))


@pytest.mark.parametrize("part", ["tool_calls", "function_call", "audio"])
def test_what_no_guard_reads_ends_the_reply(part: str) -> None:
    with pytest.raises(UpstreamError, match="not guarded"):
        read(chat(index=0, delta={part: [{"Voldemort": 1}]}))


def test_empty_tool_calls_are_no_tool_calls() -> None:
    delta: dict[str, Any] = {
        "content": "Hi",
        "tool_calls": [],
        "function_call": None,
        "audio": None,
    }
    assert read(chat(index=0, delta=delta, finish_reason="stop"))[0].text == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b"[]",
        b"3",
        b'"\xff"',
        b'{"choices": {"0": 1}}',
        b'{"choices": [3]}',
        b'{"choices": [{"delta": 3}]}',
        b'{"choices": [{"delta": {"content": ["Voldemort"]}}]}',
        b'{"choices": [{"index": "0", "delta": {}}]}',
        b'{"choices": [{"index": 1, "delta": {"content": "x"}}]}',
        b'{"choices": [{"index": -1, "delta": {"content": "x"}}]}',
        b'{"choices": [{"message": {"content": "Voldemort"}, "finish_reason": "stop"}]}',
        b'{"error": {"message": "Voldemort"}}',
        b'{"error": "Voldemort"}',
        b'{"object": "error", "message": "Voldemort"}',
    ],
)
def test_whatever_is_not_a_chunk_is_an_error_that_quotes_nothing(event: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        read(event)
    assert "Voldemort" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_a_chunk_without_choices_or_delta_adds_nothing() -> None:
    events = (
        b'{"choices": [], "prompt_filter_results": []}',
        b'{"choices": null}',
        b"{}",
        chat(index=0, content_filter_results={}),
        chat(index=0, delta=None, finish_reason="stop"),
    )
    assert [delta.text for delta in read(*events)] == ["", ""]


def test_a_choice_that_ended_twice_ended_once() -> None:
    end = chat(index=0, delta={}, finish_reason="stop")
    assert [delta.finish for delta in read(end, end)] == ["stop", None]


def test_nothing_is_written_after_the_end_of_a_choice() -> None:
    end = chat(index=0, delta={}, finish_reason="stop")
    with pytest.raises(UpstreamError, match="wrote on after choice 0"):
        read(end, chat(index=0, delta={"content": "x"}))


def test_nothing_is_read_after_the_end_of_the_stream() -> None:
    reader = ReplyReader(Request())
    end = chat(index=0, delta={}, finish_reason="stop")
    events = (end, b"[DONE]", b"not json", chat(index=0, delta={"content": "x"}))
    assert [d.finish for e in events for d in reader.read(e)] == ["stop"]
    assert reader.done


@given(st.integers(1, 4), st.integers(0, 3))
def test_a_stream_that_ends_early_never_passes_for_a_whole_one(n: int, ended: int) -> None:
    events = [chat(index=i, delta={}, finish_reason="stop") for i in range(min(n, ended))]
    if ended >= n:
        assert len(read(*events, n=n)) == n + 1
        return
    with pytest.raises(UpstreamError, match=f"{ended} of {n} choices"):
        read(*events, n=n)
