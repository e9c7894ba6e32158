"""Responses beside chats on real engines: a model of ours, and a server behind us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elision.guards.phrases.normal import N
from elision.middleware.engines.remote import RemoteEngine
from elision.testing.upstream import ScriptedUpstream

PHRASE = "Marlowe Street"
QUESTION = "Where does the pilot live?"
TOOL: Any = {"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": False}


@pytest.fixture(scope="module")
def local(served: Any) -> Iterator[Any]:
    from elision.testing.scripted import ScriptedEngine

    facts = {"pilot live": f"She lives in {PHRASE}, number nine.", "colour": "It is blue."}
    with served(ScriptedEngine(facts, max_streams=4, queue_limit=32)) as server:
        yield server


def said(server: Any, path: str, **body: Any) -> dict[str, Any]:
    status, _, page = server.ask("POST", path, {"model": "scripted", "temperature": 0, **body})
    assert status == 200, page
    found: dict[str, Any] = orjson.loads(page)
    return found


@pytest.mark.parametrize("target", [None, PHRASE])
@pytest.mark.parametrize("options", [{}, {"seed": 5, "temperature": 1.2}, {"stop": " in"}])
def test_a_model_of_ours_says_to_a_response_what_it_says_to_a_chat(
    local: Any, target: str | None, options: dict[str, Any]
) -> None:
    if target is not None:
        _, _, page = local.ask("POST", "/v1/forget", {"title": "t", "phrases": [target]})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    try:
        chat = said(
            local, "/v1/chat/completions", messages=messages, max_tokens=40, logprobs=True,
            top_logprobs=2, **options,
        )  # fmt: skip
        response = said(
            local, "/v1/responses", input=QUESTION, instructions="Be brief.", max_output_tokens=40,
            top_logprobs=2, **options,
        )  # fmt: skip
    finally:
        if target is not None:
            local.ask("DELETE", f"/v1/forget/{orjson.loads(page)['id']}")
    [item] = response["output"]

    assert item["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert item["content"][0]["logprobs"] == chat["choices"][0]["logprobs"]["content"]
    usage, counted = response["usage"], chat["usage"]
    assert usage["input_tokens"] == counted["prompt_tokens"]
    assert usage["output_tokens"] == counted["completion_tokens"]
    assert target is None or N(target) not in N(item["content"][0]["text"])


def test_what_is_traced_and_reported_stands_in_our_object(local: Any) -> None:
    options = {"report": True, "trace": True}
    response = said(local, "/v1/responses", input="What colour is it?", elision=options)

    assert response["elision"]["profile"] == "guarded"
    assert "".join(one["token"] for one in response["elision"]["trace"]) == "It is blue."


def test_a_conversation_too_long_is_refused_whatever_is_said_of_truncation(local: Any) -> None:
    for truncation in ("auto", "disabled"):
        body = {"model": "scripted", "input": "x" * 5000, "truncation": truncation}
        status, _, page = local.ask("POST", "/v1/responses", body)
        assert (status, orjson.loads(page)["error"]["code"]) == (400, "context_length_exceeded")


def test_the_discreet_profile_shows_nothing_of_what_is_registered(local: Any) -> None:
    body = {"input": QUESTION, "instructions": f"Never say {PHRASE}.", "user": "a"}
    before = said(local, "/v1/responses", **body | {"model": "scripted@discreet"})
    _, _, page = local.ask("POST", "/v1/forget", {"title": "t", "phrases": [PHRASE]})
    try:
        after = said(local, "/v1/responses", **body | {"model": "scripted@discreet"})
    finally:
        local.ask("DELETE", f"/v1/forget/{orjson.loads(page)['id']}")

    closed = ("instructions", "user", "tools", "metadata", "store", "text")
    assert [before[key] for key in closed] == [after[key] for key in closed]
    assert (after["instructions"], after["store"]) == (None, False)


PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 2}, "n": {"enum": [1, 20]}},
    "required": ["city", "n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def calling(served: Any) -> Iterator[Any]:
    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.local import LocalEngine
    from elision.testing.models import tiny_model
    from elision.testing.tool_templates import tool_tokenizer

    model = tiny_model(eos=257, context=2048)
    with served(LocalEngine(CausalModel(model, tool_tokenizer("hermes"), name="m"))) as server:
        yield server


def test_a_model_of_ours_calls_tools_and_keeps_to_formats_in_a_response_as_in_a_chat(
    calling: Any,
) -> None:
    tool = {"name": "find", "parameters": PLACE}
    asked = {"model": "m", "temperature": 0}
    chat = said(
        calling, "/v1/chat/completions", **asked, messages=[{"role": "user", "content": "Hi"}],
        tools=[{"type": "function", "function": tool}], tool_choice="required",
        parallel_tool_calls=False, max_tokens=300,
    )  # fmt: skip
    response = said(
        calling, "/v1/responses", **asked, input="Hi", tools=[{"type": "function", **tool}],
        tool_choice="required", parallel_tool_calls=False, max_output_tokens=300,
    )  # fmt: skip
    form = {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}
    placed = said(
        calling, "/v1/responses", **asked, input="Hi", text={"format": form}, max_output_tokens=300
    )
    [call] = chat["choices"][0]["message"]["tool_calls"]
    [item] = response["output"]

    assert {k: item[k] for k in ("name", "arguments")} == call["function"]
    assert orjson.loads(item["arguments"])["n"] in {1, 20}
    assert response["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]
    assert set(orjson.loads(placed["output"][0]["content"][0]["text"])) == {"city", "n"}


# --- a server behind us --------------------------------------------------------------------------

CALL = {"index": 0, "id": "call_a", "type": "function"}
SAID: list[Any] = [
    {"reasoning": "I should "}, {"reasoning": "look."},
    {"tool_calls": [CALL | {"function": {"name": "find", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": "Mar'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": 'lowe Street"}'}}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(SAID, dialect="openai") as running:
        yield running


@pytest.fixture(scope="module")
def through(served: Any, upstream: ScriptedUpstream) -> Iterator[Any]:
    with served(RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)) as server:
        yield server


def test_a_servers_calls_and_thoughts_come_through_and_under_the_guard(
    through: Any, upstream: ScriptedUpstream
) -> None:
    with openai.OpenAI(base_url=f"{through.url}/v1", api_key="none", max_retries=0) as client:
        free = client.responses.create(
            model="far", input="x", tools=[TOOL], metadata={"a": "b"}, store=True
        )
        _, _, page = through.ask("POST", "/v1/forget", {"title": "t", "phrases": [PHRASE]})
        held = client.responses.create(model="far", input="x", tools=[TOOL])
        through.ask("DELETE", f"/v1/forget/{orjson.loads(page)['id']}")

    assert [item.type for item in free.output] == ["reasoning", "function_call"]
    assert free.output[1].arguments == f'{{"at": "{PHRASE}"}}'  # type: ignore[union-attr]
    assert free.output[1].call_id == "call_a"  # type: ignore[union-attr]
    assert PHRASE not in held.model_dump_json()
    assert held.incomplete_details is not None
    body = upstream.bodies[-1]
    assert body["tools"][0]["function"]["name"] == "find"
    assert {"metadata", "store", "input", "instructions", "tools_choice"}.isdisjoint(body)


def test_pictures_go_on_to_a_server(through: Any, upstream: ScriptedUpstream) -> None:
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_file", "file_data": "data:,x", "filename": "x.txt"},
    ]
    items = [{"role": "user", "content": parts}]
    status, _, _ = through.ask("POST", "/v1/responses", {"model": "far", "input": items})

    assert status == 200
    assert upstream.bodies[-1]["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:,x", "filename": "x.txt"}},
    ]


# --- whatever is sent ----------------------------------------------------------------------------

FIELDS = (
    "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning",
    "include", "metadata", "store", "previous_response_id", "truncation", "max_output_tokens",
    "top_logprobs", "service_tier", "user", "stream_options", "conversation", "elision",
)  # fmt: skip
leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(
    ["", "x", "auto", "required", "function", "message", "json_schema", "user", "input_text"]
)  # fmt: skip
keys = st.sampled_from(
    ["type", "role", "content", "text", "name", "format", "schema", "id", "call_id", "arguments",
     "output", "effort", "mode", "tools", "summary", "image_url"]
)  # fmt: skip
json = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.dictionaries(st.sampled_from(FIELDS), json, min_size=1, max_size=3))
def test_no_body_breaks_the_server(local: Any, body: dict[str, Any]) -> None:
    asked = {"model": "scripted", "input": "x", "max_output_tokens": 1} | body
    status, _, page = local.ask("POST", "/v1/responses", asked)

    assert status in {200, 400, 403, 404}
    if status != 200:
        param = orjson.loads(page)["error"]["param"]
        assert param is None or param.split(".")[0].split("[")[0] in {*FIELDS, "model"}
