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

from elision.contract import Alternative, Delta, Request, Sampling, TokenLogprob, Usage
from elision.errors import CapabilityError, RequestError, UpstreamError
from elision.middleware.engines.upstream.bodies import body_of, check
from elision.middleware.engines.upstream.chances import read_logprobs
from elision.middleware.engines.upstream.offers import Offers
from elision.middleware.engines.upstream.wire import ReplyReader

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
    raw = Request(kind="text", prompt="Once", max_tokens=5)
    assert body(raw, length_field="max_completion_tokens")["max_tokens"] == 5


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


def test_what_the_caller_asks_of_the_model_travels_whatever_it_is() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    asked = {"tools": tools, "tool_choice": "auto", "response_format": {"type": "json_object"}}
    assert body(Request(messages=ASK, extra=asked)).items() >= asked.items()


def test_log_probabilities_are_asked_for_in_each_routes_own_words() -> None:
    assert (
        body(Request(messages=ASK, logprobs=3)).items()
        >= {
            "logprobs": True,
            "top_logprobs": 3,
        }.items()
    )
    assert "top_logprobs" not in body(Request(messages=ASK, logprobs=0))
    assert body(Request(kind="text", prompt="Once", logprobs=0))["logprobs"] == 0
    assert "logprobs" not in body(Request(messages=ASK))


def test_a_beginning_is_continued_and_ids_are_a_prompt() -> None:
    begun = (*ASK, {"role": "assistant", "content": "I"})
    sent = body(Request(messages=begun, continue_final=True))
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert body(Request(kind="text", prompt=(1, 2)))["prompt"] == [1, 2]
    extra = {"continue_final_message": True}
    assert "continue_final_message" not in body(Request(messages=begun, extra=extra))


BIASED = Request(sampling=Sampling(logit_bias={7: 1.0}))


@pytest.mark.parametrize("offers", [None, Offers()])
@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request(kind="text", prompt=(1, 2)), "prompt"),
        (Request(continue_final=True), "continue_final_message"),
        (Request(sampling=Sampling(top_n_sigma=1.0)), "top_n_sigma"),
        (Request(sampling=Sampling(rng="torch")), "rng"),
        (Request(answer="I"), "score"),
    ],
)
def test_what_could_be_misread_is_refused_by_name(
    request_: Request, param: str, offers: Offers | None
) -> None:
    with pytest.raises(CapabilityError) as caught:
        check(request_, engine="up", offers=offers)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request(logprobs=0), "logprobs"),
        (Request(kind="text", prompt="Once", logprobs=2), "logprobs"),
        (BIASED, "logit_bias"),
    ],
)
def test_what_the_upstream_was_seen_to_ignore_is_refused_by_name(
    request_: Request, param: str
) -> None:
    with pytest.raises(CapabilityError) as caught:
        check(request_, engine="up", offers=Offers())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("request_", "offers"),
    [
        (Request(messages=ASK, extra={"tools": [{}], "user": "u"}), Offers()),
        (Request(kind="text", prompt="Once"), Offers()),
        (Request(logprobs=5), None),
        (BIASED, None),
        (Request(logprobs=5), Offers(n_logprobs=5)),
        (Request(kind="text", logprobs=2), Offers(n_text_logprobs=2)),
        (Request(kind="text", prompt=(1, 2)), Offers(prompt_ids=True)),
        (Request(continue_final=True), Offers(continues=True)),
    ],
)  # fmt: skip
def test_what_is_offered_or_unknown_is_the_upstreams_to_judge(
    request_: Request, offers: Offers | None
) -> None:
    check(request_, engine="up", offers=offers)


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


def test_all_that_one_chunk_says_of_a_choice_is_one_delta() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    said = {"role": "assistant", "content": "So", "reasoning_content": "hm", "tool_calls": [call],
            "refusal": "no", "new_in_2031": {"a": 1}, "annotations": [], "audio": None}  # fmt: skip
    row = {"token": "So", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    (delta, _) = read(
        chat(index=0, delta=said, finish_reason="tool_calls", logprobs={"content": [row]},
             stop_reason="x", token_ids=[5], content_filter_results=None)
    )  # fmt: skip
    assert (delta.text, delta.finish) == ("So", "tool_calls")
    assert delta.message == {
        "reasoning_content": "hm", "tool_calls": [call], "refusal": "no", "new_in_2031": {"a": 1}
    }  # fmt: skip
    assert delta.extra == {"stop_reason": "x", "token_ids": [5]}
    assert delta.logprobs == (TokenLogprob("So", -0.5, b"So"),)


def test_what_concerns_the_whole_reply_comes_with_its_end() -> None:
    lead = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "service_tier": None}
    tier = {"choices": [], "service_tier": "flex", "obfuscation": "xyz", "id": "up", "model": "m"}
    end = chat(index=0, delta={}, finish_reason="stop")
    last = read(json.dumps(lead).encode(), end, json.dumps(tier).encode(), b'{"type": "ping"}')[-1]
    assert last.extra == {"prompt_filter_results": [{"prompt_index": 0}], "service_tier": "flex"}


def test_usage_keeps_what_only_the_upstream_counts() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
             "prompt_tokens_details": {"cached_tokens": 1},
             "completion_tokens_details": {"reasoning_tokens": 2}, "cost": 0.25}  # fmt: skip
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    assert read(json.dumps(end).encode())[-1].usage == Usage(
        prompt_tokens=3,
        completion_tokens=2,
        cached_tokens=1,
        extra={"completion_tokens_details": {"reasoning_tokens": 2}, "cost": 0.25},
    )


def test_parts_of_a_content_that_are_no_text_stand_beside_it() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "So"}]
    (delta, _) = read(chat(index=0, delta={"content": parts}, finish_reason="stop"))
    assert (delta.text, delta.message) == ("So", {"content_parts": parts[:1]})


@pytest.mark.parametrize(
    ("calls", "want"),
    [
        ([{"id": "a"}, {"function": {"arguments": "}"}}, {"id": "b"}, {"id": "b"}], [0, 0, 1, 1]),
        ([{"function": {"name": "f"}}, {"function": {}}, {"function": {"name": "f"}}], [0, 0, 1]),
        ([{"index": 3}, {"custom": {"input": "x"}}, {"index": 0}, {"id": "n"}], [3, 3, 0, 4]),
        ([{"function": "no object"}], [0]),
    ],
)
def test_calls_without_an_index_get_the_one_they_have(calls: list[Any], want: list[int]) -> None:
    deltas = read(
        *(chat(index=0, delta={"tool_calls": [call]}) for call in calls),
        chat(index=0, delta={}, finish_reason="tool_calls"),
    )
    assert [delta.message["tool_calls"][0]["index"] for delta in deltas[:-2]] == want


numbers = st.floats(-50, 0)
entries = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=3), numbers), max_size=4
)


@given(entries, entries)
def test_log_probabilities_of_both_routes_are_the_same_nouns(
    row: list[tuple[str, float]], top: list[tuple[str, float]]
) -> None:
    top = sorted(dict(top).items(), key=lambda pair: -pair[1])
    alternatives = tuple(Alternative(t, v, t.encode()) for t, v in top)
    want = tuple(TokenLogprob(t, v, t.encode(), alternatives) for t, v in row)
    in_chat = {"content": [
        {"token": t, "logprob": v, "bytes": [*t.encode()],
         "top_logprobs": [{"token": u, "logprob": w, "bytes": None} for u, w in top]}
        for t, v in row
    ]}  # fmt: skip
    in_text = {"tokens": [t for t, _ in row], "token_logprobs": [v for _, v in row],
               "top_logprobs": [dict(top)] * len(row), "text_offset": [0] * len(row)}  # fmt: skip
    assert read_logprobs(in_chat) == read_logprobs(in_text) == want


def test_the_first_token_of_an_echo_has_no_log_probability() -> None:
    value = {"tokens": ["A", "b"], "token_logprobs": [None, -1], "top_logprobs": [None, {"b": -1}]}
    first, second = read_logprobs(value)
    assert first.logprob != first.logprob
    assert (second.logprob, first.top) == (-1.0, ())


@pytest.mark.parametrize(
    "value",
    [3, "Voldemort", {"content": 3}, {"content": [{"token": 3, "logprob": 0}]},
     {"content": [{"logprob": 0}]}, {"tokens": ["Voldemort"], "token_logprobs": []},
     {"content": [{"token": "Voldemort", "logprob": "x"}]}, {"tokens": 3},
     {"content": [{"token": "Voldemort", "logprob": 0, "bytes": [999]}]}],
)  # fmt: skip
def test_log_probabilities_in_no_known_form_are_an_error_that_quotes_nothing(value: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_logprobs(value)
    assert "Voldemort" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_a_reply_in_one_object_reads_as_its_stream_would() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "tool_calls": [call, call | {"id": "d"}],
    }
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 3}, "service_tier": "flex"}  # fmt: skip
    reader = ReplyReader(Request())
    (delta,) = reader.whole(json.dumps(body).encode())
    calls = [call | {"index": 0}, call | {"id": "d", "index": 1}]
    assert delta == Delta(text="Hi", message={"tool_calls": calls}, finish="tool_calls")
    last = reader.last(engine="up")
    assert (last.usage, last.extra) == (Usage(prompt_tokens=3), {"service_tier": "flex"})


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
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("tool_use", "tool_calls"),
        ("tool_calls", "tool_calls"),
        ("function_call", "function_call"),
    ],
)
def test_reasons_to_end_are_openais(said: str, meant: str) -> None:
    assert read(chat(index=0, delta={}, finish_reason=said))[0].finish == meant


@pytest.mark.parametrize(("said", "told"), [("abort", True), ("pause_turn", True), ("1 a", False)])
def test_other_reasons_to_end_are_told_beside_it_if_they_are_names(said: str, told: bool) -> None:
    delta = read(chat(index=0, delta={}, finish_reason=said))[0]

    assert delta.finish == "stop"
    assert delta.extra == ({"upstream_finish_reason": said} if told else {})


def test_nobody_upstream_speaks_as_our_report() -> None:
    spoken = {"elision": {"guard_form": "none"}}
    choice = {"index": 0, "delta": {"content": "Hi", **spoken}, "finish_reason": "stop", **spoken}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, **spoken}
    event = json.dumps({"choices": [choice], "usage": usage, "service_tier": "x", **spoken})
    deltas = read(event.encode())

    assert "guard_form" not in repr(deltas)
    assert deltas[-1].extra == {"service_tier": "x"}


@pytest.mark.parametrize("count", [4711081512, 2**31, -1, True, 1e300])
def test_counts_that_cannot_be_count_as_nought(count: Any) -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": count, "completion_tokens": 2**31 - 1}
    deltas = read(json.dumps({**end, "usage": usage}).encode())

    assert deltas[-1].usage == Usage(completion_tokens=2**31 - 1)


def test_a_call_without_an_index_has_it_in_front() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    (delta, *_) = read(chat(index=0, delta={"tool_calls": [call]}, finish_reason="tool_calls"))

    assert list(delta.message["tool_calls"][0]) == ["index", "id", "type", "function"]


@pytest.mark.parametrize("index", [-1, 4711081512])
def test_a_call_with_an_absurd_index_is_an_error(index: int) -> None:
    call = {"index": index, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    with pytest.raises(UpstreamError):
        read(chat(index=0, delta={"tool_calls": [call]}))


@pytest.mark.parametrize("said", ["error", "insufficient_system_resource", 3])
def test_an_error_for_a_reason_is_an_error(said: Any) -> None:
    with pytest.raises(UpstreamError):
        read(chat(index=0, delta={}, finish_reason=said))


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
        b'{"choices": [{"text": 3}]}',
        b'{"choices": [{"delta": {"content": [{"type": "text", "text": {"Voldemort": 1}}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": {"Voldemort": 1}}}]}',
        b'{"choices": [{"delta": {"tool_calls": ["Voldemort"]}}]}',
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


def test_arguments_that_come_as_an_object_are_handed_on_as_the_json_they_are() -> None:
    function = {"name": "f", "arguments": {"q": ["tide"]}}
    delta = {"tool_calls": [{"id": "c", "function": function}], "function_call": function}
    message = read(chat(delta=delta), chat(finish_reason="stop"))[0].message
    for called in (message["tool_calls"][0]["function"], message["function_call"]):
        assert called == {"name": "f", "arguments": '{"q":["tide"]}'}
