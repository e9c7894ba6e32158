"""LangChain's standard suites for chat models: on a scripted server, and on a real small model.

Between `ChatElision` and the server everything is real: client, pipeline, guard, HTTP. A target is
registered, so that each reply is held and checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests import chat_models as integration
from langchain_tests.unit_tests import ChatModelUnitTests
from langchain_tests.unit_tests import chat_models as unit

import elision
from elision.agents.langchain import ChatElision
from elision.contract import Delta, Plan
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget
from elision.middleware.client import Client
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.pipeline import Pipeline
from elision.testing.text_engine import TextEngine
from elision.testing.upstream import ScriptedUpstream

SKIPPED = {
    "ChatModelUnitTests": {
        "test_init_from_env": "it is handed a client; `elision.load` and `connect` read settings",
        "test_serdes": "a client holds a model or a connection, which nothing can write down",
    },
    "ChatModelIntegrationTests": {
        "test_stream_time": "times a recorded hosted model; ours is timed by `elision bench`",
    },
}
"""Standard tests that say nothing about a chat model of ours, and why."""

NOT_OF_SMOLLM2 = SKIPPED["ChatModelIntegrationTests"] | {
    **dict.fromkeys(
        (
            "test_tool_calling",
            "test_tool_calling_async",
            "test_bind_runnables_as_tools",
            "test_tool_message_histories_string_content",
            "test_tool_message_histories_list_content",
            "test_tool_choice",
            "test_tool_calling_with_no_arguments",
            "test_tool_message_error_status",
            "test_structured_few_shot_examples",
            "test_agent_loop",
            "test_unicode_tool_call_integration",
        ),
        "its chat template takes no tools",
    ),
    **dict.fromkeys(
        (
            "test_image_inputs",
            "test_image_tool_message",
            "test_pdf_inputs",
            "test_pdf_tool_message",
            "test_audio_inputs",
            "test_anthropic_inputs",
        ),
        "it reads text alone",
    ),
    **dict.fromkeys(
        (
            "test_invoke_with_model_override",
            "test_ainvoke_with_model_override",
            "test_stream_with_model_override",
            "test_astream_with_model_override",
        ),
        "one model is loaded, and another name is refused",
    ),
    "test_json_mode": "any JSON object will do there, and 135M parameters do not pick its keys",
}
"""Those that do not fit the model, and why."""


# --- The scripted server -------------------------------------------------------------------------


def answer(body: Mapping[str, Any]) -> Any:
    """Answer as a model that does what it is asked: calls, JSON of a schema, text."""
    last = body["messages"][-1]
    tools, choice = body.get("tools") or [], body.get("tool_choice", "auto")
    asked = last["content"] if isinstance(last["content"], str) else ""
    if tools and choice != "none" and (last["role"] == "user" or choice != "auto"):
        named = choice["function"]["name"] if isinstance(choice, dict) else None
        functions = [tool["function"] for tool in tools]
        called = next((one for one in functions if one["name"] == named), functions[0])
        return call(called["name"], filled(called.get("parameters") or {}, asked))
    form = body.get("response_format") or {"type": "text"}
    if form["type"] == "json_schema":
        return json.dumps(filled(form["json_schema"]["schema"], asked))
    if form["type"] == "json_object":
        return json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", asked), "because"))
    return "Hello! It is a fine day, and how are you?"


def filled(schema: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Return an object of *schema*; what it holds is found in what was *asked*."""
    number, quoted = re.search(r"\d+", asked), re.search(r"'(.+?)'", asked)
    values = {
        "integer": int(number[0]) if number else 3,
        "string": quoted[1] if quoted else "a pirate",
    }
    fields = schema.get("properties", {})
    return {name: values[fields[name].get("type", "string")] for name in schema.get("required", ())}


def call(name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a call, its arguments in pieces of five characters."""
    written = json.dumps(arguments, ensure_ascii=False)
    opening = {"index": 0, "id": "call_1", "type": "function"}
    pieces: list[dict[str, Any]] = [opening | {"function": {"name": name, "arguments": ""}}]
    pieces += [
        {"index": 0, "function": {"arguments": written[at : at + 5]}}
        for at in range(0, len(written), 5)
    ]
    return [{"tool_calls": [piece]} for piece in pieces] + [{"finish_reason": "tool_calls"}]


class Thinker(TextEngine):
    """Tells what it thought, and counts it."""

    async def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        yield Delta(message={"reasoning_content": "Let me see. "})
        async for delta in super().stream(plan):
            if delta.usage is None:
                yield delta
                continue
            details = {
                "prompt_tokens_details": {"cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 4},
            }
            usage = replace(delta.usage, prompt_tokens=9, cached_tokens=5, extra=details)
            yield replace(delta, usage=replace(usage, completion_tokens=20))


@pytest.fixture(scope="module")
def register(tmp_path_factory: pytest.TempPathFactory) -> Register:
    register = Register.open(tmp_path_factory.mktemp("home"))
    body = {"title": "Lane", "phrases": ["Rosebud Lane"]}
    register.add(ForgetTarget.from_body(body, tenant="default"))
    return register


@pytest.fixture(scope="module")
def client(register: Register) -> Iterator[Client]:
    with ScriptedUpstream(answer) as upstream:
        engines = {
            "scripted": RemoteEngine(upstream.url, model="scripted", probe=False),
            "spare": TextEngine("The spare one speaks."),
            "thinker": Thinker("So be it."),
        }
        with Client(Pipeline(engines=engines, register=register)) as client:
            yield client


# --- What may be skipped -------------------------------------------------------------------------


class Conforming:
    """A suite that skips what its table says, for the reason it says, and nothing else."""

    skipped: Mapping[str, str]
    served = "client"
    client: Client

    @pytest.fixture(autouse=True)
    def _skips(self, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        name, was_skipped = request.node.originalname, []

        def skip(reason: str) -> None:
            assert name in self.skipped, f"{name} was skipped: {reason}"
            was_skipped.append(name)
            pytest.skip(self.skipped[name])

        for module in (unit, integration):
            monkeypatch.setattr(module, "pytest", SimpleNamespace(**vars(pytest) | {"skip": skip}))
        yield
        assert bool(was_skipped) == (name in self.skipped), f"{name} runs: take it off the table"

    @pytest.fixture(autouse=True)
    def _client(self, request: Any) -> None:
        type(self).client = request.getfixturevalue(self.served)

    @property
    def chat_model_class(self) -> type[ChatElision]:
        return ChatElision

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": self.client}


# --- On the scripted server ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ChatElision has no setting 'api_key'")  # the suite's
class TestScriptedUnit(Conforming, ChatModelUnitTests):
    skipped = SKIPPED["ChatModelUnitTests"]


class Offline:
    """Hands the suite bytes of our own where it would fetch a picture, a sound or a page."""

    @pytest.fixture(autouse=True)
    def _fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        page = SimpleNamespace(content=b"\x89PNG not really")
        monkeypatch.setattr(integration, "httpx", SimpleNamespace(get=lambda *_, **__: page))
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "nobody")


class TestScripted(Conforming, Offline, ChatModelIntegrationTests):
    skipped = SKIPPED["ChatModelIntegrationTests"]
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "spare"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[Any]]:
        told = ["reasoning_output", "cache_read_input", "cache_creation_input"]
        return {"invoke": told, "stream": told}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        model = ChatElision(client=self.client, model="thinker", streaming=stream)
        return model.invoke("How much is it?")

    invoke_with_cache_read_input = invoke_with_reasoning_output
    invoke_with_cache_creation_input = invoke_with_reasoning_output


@pytest.mark.slow
class TestScriptedByCalls(TestScripted):
    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "function_calling"}


@pytest.mark.slow
class TestScriptedStreaming(TestScripted):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"streaming": True}


class TestScriptedBlocks(TestScripted):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"output_version": "v1"}


# --- On a model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with elision.load("smollm2-135m", home=home, dtype="float32", threads=1) as client:
        client.forget("Lane", ["Rosebud Lane"])
        yield client


@pytest.mark.model
@pytest.mark.slow
class TestSmolLM2(Conforming, ChatModelIntegrationTests):
    skipped = NOT_OF_SMOLLM2
    served = "small"
    has_tool_calling = False
    supports_model_override = False

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # Greedy, it says one word for ever, and a string of a schema has no end of its own.
        penalty = {"repetition_penalty": 1.15}
        return {
            "client": self.client,
            "temperature": 0,
            "max_tokens": 160,
            "model_kwargs": penalty,
        }


# --- The figure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [ChatModelUnitTests, ChatModelIntegrationTests])
def test_every_standard_test_runs_or_is_on_the_table_with_its_reason(suite: type) -> None:
    names = {name for name in dir(suite) if name.startswith("test_")}
    names -= {"test_no_overrides_DO_NOT_OVERRIDE"}
    skipped = SKIPPED[suite.__name__]
    assert skipped.keys() <= names
    assert all(skipped.values())
    ours = TestScriptedUnit if suite is ChatModelUnitTests else TestScripted
    assert {name for name in names if getattr(ours, name) is not getattr(suite, name)} == set()
