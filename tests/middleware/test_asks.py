"""What asks for more than text is for engines that hand it on; all others refuse it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Capability, Engine, Request, collect
from elision.errors import RequestError
from elision.guards.register.register import Register
from elision.middleware.asks import check_asks
from elision.middleware.pipeline import Pipeline
from elision.middleware.profiles import PROFILES
from elision.middleware.wire import parse_chat
from elision.testing.agents import forgetful
from elision.testing.scripted import ScriptedEngine
from elision.testing.text_engine import TextEngine

CANARY = "zanzibar-7731"
USER = {"role": "user", "content": "Who was the painter?"}
CALL = {"id": "c1", "type": "function", "function": {"name": CANARY, "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{CANARY}"}}
TOOL = {"type": "function", "function": {"name": CANARY}}


def passing() -> TextEngine:
    """Return an engine that speaks text only, but hands on whatever it is asked."""
    engine = TextEngine("Well.", name="model")
    engine.capabilities |= Capability.PASSES
    return engine


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "model", "messages": [USER], **fields}


def said(message: Mapping[str, Any]) -> dict[str, Any]:
    return chat(messages=[USER, message])


ASKS: list[tuple[dict[str, Any], str]] = [
    (chat(tools=[TOOL]), "tools"),
    (chat(tools=CANARY), "tools"),
    (chat(tool_choice="required"), "tool_choice"),
    (chat(tool_choice=TOOL), "tool_choice"),
    (chat(functions=[{"name": CANARY}]), "functions"),
    (chat(function_call={"name": CANARY}), "function_call"),
    (chat(response_format={"type": "json_object"}), "response_format"),
    (chat(response_format={"type": "text", "x": CANARY}), "response_format"),
    (chat(response_format=CANARY), "response_format"),
    (chat(modalities=["text", "audio"]), "modalities"),
    (chat(modalities=CANARY), "modalities"),
    (chat(audio={"voice": CANARY}), "audio"),
    (chat(web_search_options={}), "web_search_options"),
    (said({"role": "tool", "content": CANARY, "tool_call_id": "c1"}), "messages[1].role"),
    (said({"role": "function", "content": CANARY, "name": "f"}), "messages[1].role"),
    (said({"role": "assistant", "tool_calls": [CALL]}), "messages[1].tool_calls"),
    (said({"role": "assistant", "content": "a", "tool_calls": [CALL]}), "messages[1].tool_calls"),
    (said({"role": "assistant", "function_call": {"name": CANARY}}), "messages[1].function_call"),
    (said({"role": "assistant", "refusal": CANARY}), "messages[1].content"),
    (said({"role": "assistant", "content": None, "audio": {"id": CANARY}}), "messages[1].content"),
    (said({"role": "user", "content": [IMAGE]}), "messages[1].content[0].type"),
    (
        said({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": CANARY}]}),
        "messages[1].content[1].type",
    ),
]  # fmt: skip
FORMATS = ({"type": "json_object"}, {"type": "text", "x": CANARY})
"""What a model that decodes here takes: its replies are held to it."""
HARMLESS: list[dict[str, Any]] = [
    {},
    {"tools": [], "functions": [], "tool_choice": "auto", "function_call": "none"},
    {"tools": None, "tool_choice": "none", "response_format": None, "audio": None},
    {"response_format": {"type": "text"}, "modalities": ["text"], "user": "ann", "metadata": {}},
]


def speaking() -> ScriptedEngine:
    return ScriptedEngine({"painter": "Nobody knows."}, name="model")


def pipeline(engine: Engine, home: Path) -> Pipeline:
    return Pipeline(engines={"model": engine}, register=Register.open(home), agentic=forgetful())


# --- Laws ----------------------------------------------------------------------------------------


@given(st.sampled_from(ASKS), st.sampled_from(list(Capability)))
def test_only_an_engine_that_passes_things_on_takes_what_is_no_text(
    ask: tuple[dict[str, Any], str], also: Capability
) -> None:
    body, param = ask
    request = parse_chat(body).request
    engine = TextEngine("a")
    engine.capabilities = also & ~Capability.PASSES
    with pytest.raises(RequestError) as caught:
        check_asks(request, engine)

    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.code == "unsupported_parameter"
    assert CANARY not in str(caught.value)
    engine.capabilities = also | Capability.PASSES
    check_asks(request, engine)


@given(st.dictionaries(st.text(min_size=1).map("x_".__add__), st.text() | st.lists(st.integers())))
def test_a_field_that_nobody_knows_is_nobodys_ask(extra: dict[str, Any]) -> None:
    check_asks(replace(parse_chat(chat()).request, extra=extra), TextEngine("a"))


# --- Through the pipeline ------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
async def test_no_profile_lets_a_local_engine_be_asked_for_more_than_it_writes(
    profile: str, tmp_path: Path
) -> None:
    pipe = pipeline(speaking(), tmp_path)
    for body, param in ASKS:
        if body.get("response_format") in FORMATS:
            continue
        with pytest.raises(RequestError) as caught:
            await collect(pipe.run(parse_chat(body).request, profile=profile))
        assert (caught.value.status, (caught.value.param or "").removesuffix(".function.name")) == (
            400,
            param,
        )
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("fields", HARMLESS)
async def test_what_asks_for_nothing_is_no_ask(fields: dict[str, Any], tmp_path: Path) -> None:
    request = parse_chat(chat(temperature=0, **fields)).request

    assert (await collect(pipeline(speaking(), tmp_path).run(request))).text == "Nobody knows."


@pytest.mark.parametrize(("body", "_param"), ASKS)
async def test_an_engine_that_passes_things_on_gets_them_as_they_were_sent(
    body: dict[str, Any], _param: str, tmp_path: Path
) -> None:
    engine = passing()
    done = await collect(pipeline(engine, tmp_path).run(parse_chat(body).request))

    (request,) = engine.requests
    assert done.text == "Well."
    assert list(request.messages) == body["messages"]
    assert request.extra == {k: v for k, v in body.items() if k not in {"model", "messages"}}


def test_a_completion_is_asked_as_a_chat_is() -> None:
    request = Request(kind="text", prompt="Once", extra={"response_format": {"type": "json"}})
    with pytest.raises(RequestError, match="response_format"):
        check_asks(request, TextEngine("a"))
