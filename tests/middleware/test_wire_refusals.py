"""A table of bodies that no engine is asked to serve, and the field that each refusal names."""

from __future__ import annotations

import math
from typing import Any

import pytest

from elision.errors import RequestError
from elision.middleware.wire import parse_chat, parse_completion

CANARY = "zanzibar-7731"
USER = {"role": "user", "content": "Hello!"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def text(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "Once", **fields}


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
    (chat(messages=[{"role": "user"}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": []}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": ["a"]}]), "messages[0].content[0]"),
    (chat(messages=[{"role": "user", "content": [{}]}]), "messages[0].content[0].type"),
    (
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": None}]}]),
        "messages[0].content[0].text",
    ),
    (chat(messages=[{"role": "user", "content": [{"type": 7}]}]), "messages[0].content[0].type"),
    (chat(messages=[{"role": "user", "content": None, "refusal": CANARY}]), "messages[0].content"),
    (chat(messages=[{"role": "tool", "tool_call_id": CANARY}]), "messages[0].content"),
    (chat(messages=[{"role": "assistant", "content": None}]), "messages[0].content"),
    (chat(messages=[{"role": "assistant", "tool_calls": []}]), "messages[0].content"),
    (chat(messages=[USER | {"name": 3}]), "messages[0].name"),
    (chat(messages=[{"role": "user", "content": CANARY + "\ud800"}]), "messages[0].content"),
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
    (chat(continue_final_message=True), "continue_final_message"),
    (
        chat(
            messages=[{"role": "assistant", "tool_calls": [{"id": CANARY}]}],
            continue_final_message=True,
            add_generation_prompt=False,
        ),
        "continue_final_message",
    ),
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
