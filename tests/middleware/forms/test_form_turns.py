"""Conversations with calls and their results, as chat templates are given them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from elision.contract import Request
from elision.errors import RequestError
from elision.middleware.asks import check_asks
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.forms.dialects import HERMES, MISTRAL
from elision.middleware.forms.form import Form, form_of
from elision.middleware.forms.turns import templated
from elision.testing.models import tiny_model
from elision.testing.tool_templates import TEMPLATES, Family, tool_tokenizer

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


SUNNY = [{"type": "text", "text": "sun"}, {"type": "text", "text": "ny"}]


def asked(arguments: Any = '{"city": "Par\\u00eds", "n": [1]}', **more: Any) -> dict[str, Any]:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "find", "arguments": arguments},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def answered(content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "call_1", "content": content}


def turns(*messages: dict[str, Any], **extra: Any) -> Request:
    user = {"role": "user", "content": "Where?"}
    return Request(messages=(user, *messages), max_tokens=1, extra={"tools": [TOOL], **extra})


@cache
def model(family: Family) -> CausalModel:
    return CausalModel(tiny_model(context=4096), tool_tokenizer(family), name="m")


def prompt(family: Family, request: Request) -> str:
    found = model(family)
    ids = found.render(request).ids
    return str(found.tokenizer.decode(list(ids)))


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("content", ["sunny", SUNNY])
def test_every_template_shows_tools_calls_and_results(family: Family, content: Any) -> None:
    text = prompt(family, turns(asked(), answered(content)))

    assert '"name": "find"' in text
    assert "sunny" in text
    key = "parameters" if family == "llama" else "arguments"
    written = text.rpartition(f'"{key}": ')[2]
    assert json.JSONDecoder().raw_decode(written)[0] == {"city": "París", "n": [1]}
    assert "call_1" not in text or family != "mistral", "ids have the length the template wants"


def test_tools_are_shown_only_where_they_may_be_called() -> None:
    assert "find" in prompt("hermes", turns())
    assert "find" not in prompt("hermes", turns(tool_choice="none"))


def test_results_of_tools_are_not_the_callers_words() -> None:
    request = turns(asked(), answered("Say Marlowe Street."))

    assert request.user_text == "Where?"


@pytest.mark.parametrize("arguments", [None, "", " ", "{}", {}])
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    [turn] = templated([asked(arguments)], HERMES)

    assert turn["content"] == ""
    assert turn["tool_calls"][0]["function"] == {"name": "find", "arguments": {}}


def test_keys_without_a_value_are_left_out_for_templates_look_for_them() -> None:
    empty: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "tool_calls": [],
        "function_call": None,
    }
    [turn] = templated([empty], HERMES)

    assert turn == {"role": "assistant", "content": "Hi"}


def test_a_shortened_id_is_the_same_for_the_same_id_and_letters_and_digits() -> None:
    call, result = templated([asked(), answered("x")], MISTRAL)
    name = call["tool_calls"][0]["id"]

    assert name == result["tool_call_id"]
    assert (len(name), name.isalnum()) == (9, True)
    fits = templated([replace_id("abcDEF123")], MISTRAL)[0]
    assert fits["tool_calls"][0]["id"] == "abcDEF123"


def replace_id(name: str) -> dict[str, Any]:
    message = asked()
    message["tool_calls"][0]["id"] = name
    return message


MALFORMED: list[tuple[Any, str]] = [
    ({"a": 1}, ""),
    (["x"], "[0].function"),
    ([{"function": "f"}], "[0].function"),
    ([{"function": {"arguments": "{}"}}], "[0].function.name"),
    ([{"function": {"name": "f", "arguments": "[1]"}}], "[0].function.arguments"),
    ([{"function": {"name": "f", "arguments": "{'canary'"}}], "[0].function.arguments"),
    ([{"function": {"name": "f", "arguments": 3}}], "[0].function.arguments"),
]


@pytest.mark.parametrize(("calls", "where"), MALFORMED)
def test_a_malformed_call_is_told_by_its_place(calls: Any, where: str) -> None:
    with pytest.raises(RequestError) as caught:
        templated([{"role": "user"}, asked(tool_calls=calls)], HERMES)

    assert caught.value.param == f"messages[1].tool_calls{where}"
    assert "canary" not in str(caught.value)


def test_what_a_template_raises_is_a_bad_request() -> None:
    two = asked()
    two["tool_calls"] = two["tool_calls"] * 2
    with pytest.raises(RequestError, match="chat template"):
        prompt("llama", turns(two))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"continue_final": True}, "tools"),
        ({"kind": "text", "prompt": "Hi", "messages": ()}, "tools"),
        ({"answer": "Yes."}, "tools"),
        (
            {"extra": {"response_format": {"type": "json_object"}}, "answer": "Yes."},
            "response_format",
        ),
        ({"extra": {"functions": [TOOL["function"]]}}, "functions"),
    ],
)
async def test_what_has_no_form_takes_none(more: dict[str, Any], param: str) -> None:
    engine = LocalEngine(model("hermes"))
    with pytest.raises(RequestError) as caught:
        check_asks(replace(turns(), **more), engine)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    check_asks(turns(asked(), answered("x")), engine)
    await engine.aclose()


# --- What is read of a request -------------------------------------------------------------------

READ: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"calls": "may", "only": "", "parallel": True}),
    ({"tool_choice": "none"}, {"calls": "none", "callable": ()}),
    (
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"calls": "must", "parallel": False},
    ),
    ({"tool_choice": {"type": "function", "function": {"name": "find"}}}, {"only": "find"}),
    ({"response_format": {"type": "json_object"}}, {"schema": {"type": "object"}}),
    ({"response_format": {"type": "text"}, "tools": None}, {"is_free": True}),
]


@pytest.mark.parametrize(("extra", "found"), READ)
def test_a_form_is_read_of_openais_fields(extra: dict[str, Any], found: dict[str, Any]) -> None:
    form: Form = form_of(turns(**extra))

    assert {key: getattr(form, key) for key in found} == found


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"tools": "find"}, "tools"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
]


@pytest.mark.parametrize(("extra", "param"), BROKEN)
def test_a_malformed_form_is_told_by_its_place(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        form_of(turns(**extra))

    assert caught.value.param == param


def test_schemas_may_be_long_but_not_all_of_them() -> None:
    long = {"type": "object", "description": "x" * 90_000}
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": long}} for n in range(3)
    ]
    assert len(form_of(turns(tools=tools[:2])).tools) == 2
    with pytest.raises(RequestError) as caught:
        form_of(turns(tools=tools))
    assert caught.value.param == "tools"
