"""Bodies in, nouns out: what is read, and that everything is read or refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elision.errors import RequestError
from elision.middleware.wire import parse_chat, parse_completion

USER = {"role": "user", "content": "Hello!"}
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
    told = {key: value for key, value in extra.items() if value is not None}

    assert parse_chat(chat(**known, **extra)).request.extra == told
    assert parse_completion(text(**extra)).request.extra == told


@given(FIELDS)
def test_null_counts_as_absent(field: str) -> None:
    assume(field not in {"model", "messages", "prompt"})

    assert parse_chat(chat(**{field: None})) == parse_chat(chat())


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
