from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import ModelResponse
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel

from elision.agents.atlas.config import AdviceConfig, AtlasConfig
from elision.agents.atlas.distil import Deltas
from elision.agents.langchain import ChatElision
from elision.agents.langchain_agent import ElisionMiddleware
from elision.agents.langchain_guarding import (
    CALL_REFUSED,
    REPLY_REFUSED,
    RESULT_REFUSED,
    MessageGuard,
    TextGuard,
    spoken,
)
from elision.contract import Capability, Delta, Request, text_of
from elision.errors import ConfigError, GuardError, NotFoundError
from elision.guards.register.register import Register
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import EntryDraft
from elision.memory.memory import Memory
from elision.memory.records import Scope, Trust
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.testing.text_engine import TextEngine

PHRASE = "Rosebud Lane"
GO: Any = {"messages": [HumanMessage("Go.")]}
SPELLINGS = [PHRASE, "rosebud lane", "Rose­bud Lane", "ROSEBUD  LANE", "UmFzZWJ1ZA Rosebud-Lane"]


class Worker(TextEngine):
    """Answers in OpenAI's form, as a server that takes tools; remembers what it was asked."""

    def __init__(self, reply: Callable[[Request], Any]) -> None:
        super().__init__(reply, name="worker", every=0)
        self.capabilities |= Capability.PASSES


def called(name: str, args: dict[str, Any]) -> list[Delta]:
    function = {"name": name, "arguments": json.dumps(args, ensure_ascii=False)}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return [Delta(message={"tool_calls": [call]})]


def once(name: str, args: dict[str, Any], answer: str = "Done.") -> Callable[[Request], Any]:
    """Call a tool on the first turn, then answer."""

    def reply(request: Request) -> Any:
        return answer if request.messages[-1]["role"] == "tool" else called(name, args)

    return reply


class Foreign(BaseChatModel):
    """A model that is not ours: says what it is told to, unguarded."""

    said: list[AIMessage]
    heard: list[list[BaseMessage]]

    @property
    def _llm_type(self) -> str:
        return "foreign"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.heard.append(messages)
        message = self.said[min(len(self.heard), len(self.said)) - 1]
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


def client_on(register: Register, reply: Any) -> Client:
    return Client(Pipeline(engines={"worker": Worker(reply)}, register=register))


@pytest.fixture
def client(register: Register) -> Iterator[Client]:
    with client_on(register, "Hello.") as client:
        yield client


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    (tmp_path / "memory").mkdir()
    with Memory.open(tmp_path / "memory") as memory:
        yield memory


@pytest.fixture(params=["sync", "async"])
def run(request: Any) -> Callable[..., dict[str, Any]]:
    """Run an agent by its blocking or its async face."""

    def invoke(agent: Any, text: str = "Go.", **config: Any) -> dict[str, Any]:
        asked = {"messages": [HumanMessage(text)]}
        if request.param == "sync":
            return agent.invoke(asked, **config)
        return asyncio.run(agent.ainvoke(asked, **config))

    return invoke


class Tools:
    """A tool that returns what it is told to, and remembers what it was given."""

    def __init__(self, result: Any = "fine") -> None:
        self.given: list[str] = []

        @tool
        def note(text: str) -> Any:
            """Note something down."""
            self.given.append(text)
            return result

        self.all = [note]


# --- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "spelling"),
    [("restrict", SPELLINGS[0]), ("redact", SPELLINGS[2]), ("refuse", SPELLINGS[4])],
)
def test_a_call_that_says_what_must_not_be_said_is_not_made(
    client: Client, run: Any, action: str, spelling: str
) -> None:
    client.forget("Lane", [PHRASE], action=action)
    call = {"name": "note", "args": {"text": f"It is {spelling}."}, "id": "c1"}
    tools, guard = Tools(), ElisionMiddleware(client)
    model = Foreign(said=[AIMessage("", tool_calls=[call]), AIMessage("Done.")], heard=[])
    reply = run(create_agent(model, tools.all, middleware=[guard]))
    assert tools.given == []
    assert reply["messages"][-1].text == REPLY_REFUSED
    assert spelling not in str(reply)


def test_a_call_that_another_middleware_made_up_is_not_made_either(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    guard, given = ElisionMiddleware(client), []
    request = _request({"text": PHRASE})
    message = guard.wrap_tool_call(request, given.append)
    assert isinstance(message, ToolMessage)
    assert (message.content, message.status, given) == (CALL_REFUSED, "error", [])
    assert message.tool_call_id == "c1"


def _request(args: dict[str, Any]) -> Any:
    from langchain.agents.middleware.types import ToolCallRequest

    call = {"name": "note", "args": args, "id": "c1", "type": "tool_call"}
    return ToolCallRequest(tool_call=call, tool=None, state={}, runtime=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "args",
    [
        {"a": "Rosebud", "b": "Lane"},
        {"a": ["Rose", "bud", "La", "ne"]},
        {"Rosebud Lane": 1},
        {"Rosebud": "Lane"},
        {"Rosebud": "x", "Lane": "y"},
        {"a": {"b": [{"c": "Rosebud Lane"}]}},
        {"a": json.dumps({"b": "Rosebud\nLane"})},
        {"a": "Um9zZWJ1ZCBMYW5l"},
    ],
)
def test_arguments_are_read_however_they_are_spread(client: Client, args: dict[str, Any]) -> None:
    client.forget("Lane", [PHRASE])
    assert not MessageGuard(client).may_call("note", args)
    assert MessageGuard(client).may_call("note", {"a": "Rose", "b": ["Street"], "c": None})


leaves = st.text(max_size=6) | st.integers() | st.none() | st.booleans()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_every_string_of_a_call_is_among_what_is_judged(args: dict[str, Any]) -> None:
    told = "\0".join(spoken("note", args))

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, held in value.items():
                yield key
                yield from strings(held)
        elif isinstance(value, list):
            for held in value:
                yield from strings(held)
        elif isinstance(value, str):
            yield value

    assert all(text in told for text in strings(args))


# --- Results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "left", "spelling"),
    [
        ("restrict", True, SPELLINGS[0]),
        ("redact", True, SPELLINGS[1]),
        ("refuse", False, SPELLINGS[2]),
    ],
)
def test_a_result_reaches_the_model_without_what_must_not_be_said(
    register: Register, run: Any, action: str, left: bool, spelling: str
) -> None:
    tools = Tools(f"She lives in {spelling}, they say.")
    with client_on(register, once("note", {"text": "who"})) as client:
        client.forget("Lane", [PHRASE], action=action)
        model = ChatElision(client=client)
        reply = run(create_agent(model, tools.all, middleware=[ElisionMiddleware(client)]))
    (result,) = [one for one in reply["messages"] if isinstance(one, ToolMessage)]
    assert tools.given == ["who"]
    assert spelling not in str(result)
    assert ("they say" in result.text) is left
    assert (result.content == RESULT_REFUSED) is not left
    assert result.status == ("success" if left else "error")
    heard = [text_of(one) for one in _engine(client).requests[-1].messages]
    assert result.text in heard


def _engine(client: Client) -> Worker:
    (engine,) = client._pipeline.engines.values()
    assert isinstance(engine, Worker)
    return engine


def test_a_clean_result_is_handed_on_as_it_is(client: Client) -> None:
    message = ToolMessage("fine", tool_call_id="c1", artifact={"a": 1})
    guard = MessageGuard(client)
    assert guard.returned(message) is message
    client.forget("Lane", [PHRASE])
    assert guard.returned(message) is message
    assert guard.result(ToolMessage(PHRASE, tool_call_id="c1", artifact=3)).artifact == 3


def test_what_a_results_parts_spell_together_is_found(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    guard = MessageGuard(client)
    image = {"type": "image_url", "image_url": {"url": "data:,"}}

    def of(*parts: Any) -> Any:
        return guard.result(ToolMessage([*parts], tool_call_id="c1")).content

    assert of("Rosebud ", {"type": "text", "text": "Lane"}) == RESULT_REFUSED
    assert of({"type": "text", "text": f"by {PHRASE}!"}, image) == [
        {"type": "text", "text": "by [redacted]!"},
        image,
    ]
    assert of("fine", image) == ["fine", image]


def test_commands_are_read_too(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    guard, message = MessageGuard(client), ToolMessage(PHRASE, tool_call_id="c1")
    told = guard.returned(Command(update={"messages": [message], "n": 1}, goto="x"))
    assert (told.update["messages"][0].content, told.update["n"]) == ("[redacted]", 1)
    assert told.goto == "x"
    (pair,) = guard.returned(Command(update=[("messages", message)])).update
    assert pair[1].content == "[redacted]"
    (one,) = guard.returned([message])
    assert one.content == "[redacted]"
    with pytest.raises(GuardError):
        guard.returned(Command(update=object()))


LANE_CALL = {"role": "tool", "content": PHRASE, "tool_call_id": "c1"}


@pytest.mark.parametrize(
    "messages",
    [
        [LANE_CALL],
        LANE_CALL,
        [("user", PHRASE)],
        [HumanMessage(PHRASE)],
        (SystemMessage(PHRASE),),
        [AIMessage(PHRASE)],
        [ChatMessage(PHRASE, role="x")],
        [HumanMessage("fine", name=PHRASE)],
        [HumanMessage("fine", additional_kwargs={"a": [PHRASE]})],
        PHRASE,
        Overwrite([LANE_CALL]),
        {"__overwrite__": [LANE_CALL]},
        {"type": "__overwrite__", "value": [LANE_CALL]},
    ],
)
def test_messages_of_a_command_are_read_in_every_form(client: Client, messages: Any) -> None:
    client.forget("Lane", [PHRASE])
    guard = MessageGuard(client)
    sent = Command(goto=[Send("model", {"messages": messages})])
    for update in ({"messages": messages}, [("messages", messages)]):
        told = guard.returned(Command(update=update))
        assert PHRASE not in str(told)
        assert "[redacted]" in str(told) or RESULT_REFUSED in str(told)
    assert PHRASE not in str(guard.returned(sent).goto[0].arg)


@pytest.mark.parametrize("messages", [[object()], 7, [{"content": PHRASE}], [("tool", PHRASE)]])
def test_messages_that_cannot_be_read_end_the_run(client: Client, messages: Any) -> None:
    with pytest.raises(GuardError) as caught:
        MessageGuard(client).returned(Command(update={"messages": messages}))
    assert PHRASE not in str(caught.value)
    assert caught.value.__cause__ is None


def test_messages_that_may_pass_stay_as_they_are(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    said = [HumanMessage("Hm."), RemoveMessage(id="x"), ToolMessage("fine", tool_call_id="c1")]
    told = MessageGuard(client).returned(Command(update={"messages": said}))
    assert all(new is old for new, old in zip(told.update["messages"], said, strict=True))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_result", "content": [{"type": "text", "text": PHRASE}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": PHRASE}]},
        {"type": "json", "json": {"a": PHRASE}},
        {"type": "json", "json": {"Rosebud": {"Lane": 1}}},
        {"type": "json", "json": {"Rosebud": 1, "Lane": 2}},
        {"type": "file", "filename": PHRASE, "text": PHRASE},
        {"type": "text", "text": "a", "annotations": [{"title": PHRASE}]},
        {"type": "document", "source": {"type": "text", "data": PHRASE}},
        {"type": "document", "source": {"type": "base64", "data": "Um9zZWJ1ZCBMYW5l"}},
        {"type": "file", "base64": base64.b64encode(f"{PHRASE}. ".encode() * 40).decode()},
    ],
)
def test_all_strings_of_a_part_are_read(client: Client, part: dict[str, Any]) -> None:
    client.forget("Lane", [PHRASE], action="redact")
    guard = MessageGuard(client)
    told = guard.result(ToolMessage([part], tool_call_id="c1"))
    assert (told.content, told.status) == (RESULT_REFUSED, "error")
    assert guard.reply(AIMessage([part, "So."])).content == REPLY_REFUSED


def test_data_that_is_no_text_is_not_read(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    data = base64.b64encode(bytes(range(256)) * 4_000).decode()
    message = ToolMessage(
        [
            {"type": "image", "base64": data, "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "image_url", "image_url": f"data:image/png;base64,{data}"},
        ],
        tool_call_id="c1",
    )
    assert MessageGuard(client).result(message) is message


def test_many_places_are_all_cut_and_too_many_are_refused(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    guard = TextGuard(client)
    some = guard.judge(f"{PHRASE}; " * 40)
    assert (some.verdict, some.text.count("[redacted]")) == ("redact", 40)
    assert guard.judge(f"{PHRASE}; " * 400).verdict == "refuse"


def test_passages_are_withheld(client: Client) -> None:
    passage = " ".join(f"word{n}" for n in range(60))
    client.forget("Book", [], passages=[passage])
    guard = MessageGuard(client)
    assert guard.result(ToolMessage(passage, tool_call_id="c1")).content == RESULT_REFUSED
    assert not guard.may_call("note", {"text": passage})


def test_observing_changes_nothing(client: Client) -> None:
    client.forget("Lane", [PHRASE], action="observe")
    guard = TextGuard(client)
    assert guard.judge(f"{PHRASE}.").verdict == "allow"
    assert guard._compiled is None


def test_a_target_registered_while_an_agent_lives_holds_at_once(client: Client) -> None:
    guard = TextGuard(client)
    assert guard.judge(PHRASE).verdict == "allow"
    target = client.forget("Lane", [PHRASE]).target
    assert guard.judge(PHRASE).verdict == "redact"
    client.revoke(target.id)
    assert guard.judge(PHRASE).verdict == "allow"


# --- Replies of a model that is not ours ---------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        AIMessage(f"In {PHRASE}.", id="m"),
        AIMessage(["In Rosebud ", {"type": "text", "text": "Lane."}], id="m"),
        AIMessage("", additional_kwargs={"reasoning_content": PHRASE}, id="m"),
        AIMessage([{"type": "reasoning", "reasoning": PHRASE}, "So."], id="m"),
        AIMessage(
            "",
            invalid_tool_calls=[{"name": "f", "args": f'{{"a": "{PHRASE}', "id": "1", "error": ""}],
            id="m",
        ),
    ],
)
def test_a_foreign_models_reply_is_held_to_the_register(client: Client, message: AIMessage) -> None:
    client.forget("Lane", [PHRASE], action="refuse")
    agent = create_agent(
        Foreign(said=[message], heard=[]), [], middleware=[ElisionMiddleware(client)]
    )
    reply = agent.invoke(GO)["messages"][-1]
    assert (reply.text, reply.id) == (REPLY_REFUSED, "m")
    assert reply.response_metadata["finish_reason"] == "content_filter"


def test_redacted_it_goes_on(client: Client) -> None:
    client.forget("Lane", [PHRASE], action="redact")
    model = Foreign(said=[AIMessage(f"In {PHRASE}.")], heard=[])
    reply = create_agent(model, [], middleware=[ElisionMiddleware(client)]).invoke(GO)
    assert reply["messages"][-1].text == "In [redacted]."


class City(BaseModel):
    name: str


def test_what_was_parsed_of_a_refused_reply_goes_with_it(client: Client) -> None:
    client.forget("Lane", [PHRASE])
    call = {"name": "City", "args": {"name": PHRASE}, "id": "c1"}
    model = Foreign(said=[AIMessage("", tool_calls=[call])], heard=[])
    agent = create_agent(
        model, [], response_format=ToolStrategy(City), middleware=[ElisionMiddleware(client)]
    )
    reply = agent.invoke(GO)
    assert PHRASE not in str(reply)
    assert reply.get("structured_response") is None


def test_nobody_says_of_himself_that_he_was_guarded(client: Client) -> None:
    client.forget("Lane", [PHRASE], action="refuse")
    said = AIMessage(f"In {PHRASE}.", response_metadata={"model_provider": "elision"})
    model = Foreign(said=[said], heard=[])
    reply = create_agent(model, [], middleware=[ElisionMiddleware(client)]).invoke(GO)
    assert reply["messages"][-1].text == REPLY_REFUSED


def test_an_echo_that_the_model_may_say_is_cut_out_in_an_agent(register: Register) -> None:
    with client_on(register, f"You said {PHRASE}.") as client:
        client.forget("Lane", [{"text": PHRASE, "allow_echo": True}])
        model = ChatElision(client=client)
        agent = create_agent(model, [], middleware=[ElisionMiddleware(client)])
        asked: Any = {"messages": [HumanMessage(f"I live in {PHRASE}.")]}
        assert PHRASE in model.invoke(asked["messages"]).text
        assert agent.invoke(asked)["messages"][-1].text == "You said [redacted]."


@dataclass
class Town:
    streets: list[str]


@pytest.mark.parametrize(
    "answer", [City(name=PHRASE), {"a": ["Rosebud", {"b": "Lane"}]}, Town([PHRASE]), [PHRASE]]
)
def test_an_object_that_answers_is_read_as_well(client: Client, answer: Any) -> None:
    client.forget("Lane", [PHRASE])
    guard, messages = ElisionMiddleware(client), [AIMessage("Here.")]
    given: Any = ModelResponse(result=messages, structured_response=answer)
    told = guard.wrap_model_call(_ASKED, lambda _: given)
    assert (told.result, told.structured_response) == (messages, None)
    fine: Any = ModelResponse(result=messages, structured_response=City(name="Rome"))
    assert guard.wrap_model_call(_ASKED, lambda _: fine) is fine


_ASKED: Any = SimpleNamespace(state={})


def test_what_spells_a_reply_goes_where_the_reply_was_changed(client: Client) -> None:
    client.forget("Lane", [PHRASE], action="redact")
    told = {"logprobs": {"content": [{"token": "Rosebud"}, {"token": " Lane"}]}, "n": 1}
    guard = MessageGuard(client)
    assert guard.reply(AIMessage(PHRASE, response_metadata=told)).response_metadata == {"n": 1}
    assert guard.reply(AIMessage("So.", response_metadata=told)).response_metadata == told


@pytest.mark.parametrize("end", [{"finish_reason": "content_filter"}, {"stop_reason": "refusal"}])
def test_a_reply_that_a_filter_ended_calls_nothing(client: Client, run: Any, end: Any) -> None:
    tools = Tools()
    parts = [{"type": "text", "text": "So."}, {"type": "tool_use", "id": "c1", "input": {}}]
    call = {"name": "note", "args": {"text": "half"}, "id": "c1"}
    message = AIMessage(parts, tool_calls=[call], response_metadata=end)  # type: ignore[arg-type]
    model = Foreign(said=[message], heard=[])
    reply = run(create_agent(model, tools.all, middleware=[ElisionMiddleware(client)]))
    last = reply["messages"][-1]
    assert (tools.given, last.content, last.tool_calls) == ([], parts[:1], [])


# --- Faults --------------------------------------------------------------------------------------


class Broken:
    """A register that cannot be read."""

    tenant = "default"

    def targets(self) -> Any:
        raise RuntimeError(f"{PHRASE} is in this message")

    def may_say(self, text: str) -> bool:
        raise RuntimeError(text)


def test_a_guard_that_breaks_ends_the_run_before_the_tool(register: Register, run: Any) -> None:
    tools = Tools()
    with client_on(register, once("note", {"text": "who"})) as client:
        model = ChatElision(client=client)
        agent = create_agent(model, tools.all, middleware=[ElisionMiddleware(Broken())])
        with pytest.raises(GuardError) as caught:
            run(agent)
    assert tools.given == []
    assert PHRASE not in str(caught.value)
    assert caught.value.__cause__ is None


class Gone:
    """A memory that is not there any more."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"{PHRASE}: {name}")


def test_memory_that_breaks_ends_nothing_and_is_counted(register: Register, run: Any) -> None:
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=Gone())  # type: ignore[arg-type]
        reply = run(create_agent(ChatElision(client=client), [], middleware=[guard]))
    assert reply["messages"][-1].text == "Hello."
    assert reply["atlas"] is None
    assert guard.counts == {"recall_OSError": 1}
    assert PHRASE not in str(guard.counts)


def test_a_middleware_with_nothing_to_do_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="neither a client"):
        ElisionMiddleware()
    with pytest.raises(ConfigError, match="no memory"):
        ElisionMiddleware(Broken()).record_reward("e", 1.0)


# --- Memory --------------------------------------------------------------------------------------

AGENTS = Scope("default", ("agents",))
RULE = "Note the widgets before sorting them."


def teach(memory: Memory, scope: Scope = AGENTS) -> str:
    """Put a rule into the playbook that counts wherever widgets are spoken of."""
    cue = Cue(type="keyword", pattern="widgets")
    draft = EntryDraft(imperative=RULE, cue=cue, handle="note")
    entry = memory.playbook.add(scope, draft, actor="test", trust=Trust.OPERATOR)
    return memory.playbook.admit(scope.tenant, entry.id, actor="test").id


ALWAYS = AtlasConfig(learning="frozen")
"""Shows whatever fits; ``on`` withholds now and then, to measure."""


def test_nothing_learned_leaves_the_prompt_as_it_was(
    register: Register, memory: Memory, run: Any
) -> None:
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory)
        agent = create_agent(
            ChatElision(client=client), [], system_prompt="Be brief.", middleware=[guard]
        )
        reply = run(agent)
        (asked,) = _engine(client).requests
    assert text_of(asked.messages[0]) == "Be brief."
    episode = memory.episodes.list(AGENTS)[0]
    assert reply["atlas"] == {"episode": episode.id}
    assert "atlas_advice" not in reply
    assert (episode.state, episode.lane) == ("open", "auto")
    assert episode.tokens > 0
    assert guard.counts == {}


@pytest.mark.slow
@pytest.mark.parametrize("role", ["system", "user"])
@pytest.mark.parametrize("system", [None, "Be brief.", [{"type": "text", "text": "Be brief."}]])
def test_what_was_learned_stands_behind_the_system_message(
    register: Register, memory: Memory, role: Any, system: Any
) -> None:
    teach(memory)
    config = AtlasConfig(learning="frozen", advice=AdviceConfig(role=role))
    with client_on(register, once("note", {"text": "a"})) as client:
        agent = create_agent(
            ChatElision(client=client),
            Tools().all,
            system_prompt=None if system is None else SystemMessage(system),
            middleware=[ElisionMiddleware(client, memory=memory, config=config)],
        )
        reply = agent.invoke({"messages": [HumanMessage("Sort the widgets.")]})
        asked = _engine(client).requests
    for request in asked:  # both turns of the model
        found = [one["role"] for one in request.messages if RULE in text_of(one)]
        assert found == [role]
        if system is not None:
            assert text_of(request.messages[0]).startswith("Be brief.")
    assert RULE not in str(reply)


def test_advice_that_must_not_be_said_any_more_is_left_out(
    register: Register, memory: Memory
) -> None:
    teach(memory)
    with client_on(register, "Hello.") as client:
        client.forget("Rule", ["widgets before sorting"])
        guard = ElisionMiddleware(client, memory=memory, config=ALWAYS)
        agent = create_agent(ChatElision(client=client), [], middleware=[guard])
        agent.invoke({"messages": [HumanMessage("Sort the widgets.")]})
        (asked,) = _engine(client).requests
    assert [one["role"] for one in asked.messages] == ["user"]


@pytest.mark.slow
def test_a_run_counts_for_what_it_was_shown(register: Register, memory: Memory, run: Any) -> None:
    id_ = teach(memory)
    seen: list[Any] = []

    async def reward(task: Any, attempt: Any) -> float:
        seen.append((task.text, attempt.output, [one.tool for one in attempt.actions]))
        return 1.0

    with client_on(register, once("note", {"text": "a"})) as client:
        guard = ElisionMiddleware(client, memory=memory, reward=reward)
        agent = create_agent(ChatElision(client=client), Tools().all, middleware=[guard])
        for _ in range(3):
            reply = run(agent, "Sort the widgets.")
    assert seen == [("Sort the widgets.", "Done.", ["note"])] * 3
    last, *_ = memory.episodes.list(AGENTS)[::-1]
    assert (last.id, last.state) == (reply["atlas"]["episode"], "succeeded")
    assert (last.reward, last.success, last.rewarded_by) == (1.0, True, "checker")
    (phase,) = memory.playbook.evidence("default", id_).phases
    assert phase.applied.n + phase.withheld.n == 3
    assert phase.applied.rewards + phase.withheld.rewards == 3
    assert guard.counts == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "counted"),
    [
        (lambda *_: 1 / 0, {"reward_ZeroDivisionError": 1}),
        (lambda *_: 7.0, {"reward_range": 1}),
        (lambda *_: None, {}),
    ],
)
def test_a_reward_that_is_none_leaves_the_run_open(
    register: Register, memory: Memory, reward: Any, counted: dict[str, int]
) -> None:
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory, reward=reward)
        agent = create_agent(ChatElision(client=client), [], middleware=[guard])
        reply = agent.invoke(GO)
    assert reply["messages"][-1].text == "Hello."
    (episode,) = memory.episodes.list(AGENTS)
    assert (episode.state, episode.reward) == ("open", None)
    assert guard.counts == counted


@pytest.mark.slow
async def test_a_reward_may_come_later(register: Register, memory: Memory) -> None:
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory)
        agent = create_agent(ChatElision(client=client), [], middleware=[guard])
        reply = agent.invoke(GO)
    episode = reply["atlas"]["episode"]
    assert guard.record_reward(episode, 0.25)
    assert not await guard.arecord_reward(episode, 1.0)  # of the same rank: the first stands
    (found,) = memory.episodes.list(AGENTS)
    assert (found.reward, found.success, found.rewarded_by) == (0.25, False, "human")
    with pytest.raises(NotFoundError):
        guard.record_reward(episode, 1.0, tenant="other")


class Observer:
    """Learns one rule of every run that it is shown."""

    def __init__(self) -> None:
        self.read: list[Any] = []

    async def distil(self, read: Any, *, allowance: Any = None) -> Deltas:
        self.read.append(read)
        cue = Cue(type="keyword", pattern="widgets")
        return Deltas(add=(EntryDraft(imperative=RULE, cue=cue, handle="note"),))


@pytest.mark.slow
def test_what_a_run_taught_is_known_to_the_next(
    register: Register, memory: Memory, run: Any
) -> None:
    observer = Observer()
    with client_on(register, once("note", {"text": "a"})) as client:
        guard = ElisionMiddleware(client, memory=memory, reward=lambda *_: 0.0, distiller=observer)
        agent = create_agent(ChatElision(client=client), Tools().all, middleware=[guard])
        run(agent, "Sort the widgets of crate 7.")
        guard.settled()
        (entry,) = memory.playbook.entries(AGENTS)
        assert (entry.imperative, len(observer.read)) == (RULE, 1)
        frozen = ElisionMiddleware(client, memory=memory, config=ALWAYS)
        agent = create_agent(ChatElision(client=client), Tools().all, middleware=[frozen])
        run(agent, "Sort the widgets of crate 8.")
        assert any(RULE in text_of(m) for m in _engine(client).requests[-1].messages)
    guard.close()
    guard.close()
    assert guard.counts == {}


def test_off_touches_no_memory(register: Register, memory: Memory) -> None:
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory, config=AtlasConfig(learning="off"))
        agent = create_agent(ChatElision(client=client), [], middleware=[guard])
        assert agent.invoke(GO)["atlas"] is None
    assert not memory.episodes.list(AGENTS)


@pytest.mark.slow
def test_each_turn_of_a_thread_is_an_episode_and_keeps_no_advice(
    register: Register, memory: Memory
) -> None:
    teach(memory)
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory, config=ALWAYS)
        agent = create_agent(
            ChatElision(client=client), [], middleware=[guard], checkpointer=InMemorySaver()
        )
        config: Any = {"configurable": {"thread_id": "t"}}
        told = {
            agent.invoke({"messages": [HumanMessage(f"Sort the widgets of {n}.")]}, config)[
                "atlas"
            ]["episode"]
            for n in range(2)
        }
    assert told == {episode.id for episode in memory.episodes.list(AGENTS)}
    assert RULE not in str(agent.get_state(config).values)


def test_a_run_may_tell_whose_memory_it_is(register: Register, memory: Memory) -> None:
    def scope(runtime: Any) -> Scope:
        return Scope("default", ("agents", runtime.context["user"]))

    teach(memory, Scope("default", ("agents", "ann")))
    with client_on(register, "Hello.") as client:
        guard = ElisionMiddleware(client, memory=memory, scope=scope, config=ALWAYS)
        agent = create_agent(
            ChatElision(client=client), [], middleware=[guard], context_schema=dict
        )
        for user in ("ann", "bob"):
            asked: Any = {"messages": [HumanMessage("Sort the widgets.")]}
            agent.invoke(asked, context={"user": user})
        ann, bob = _engine(client).requests
    assert any(RULE in text_of(one) for one in ann.messages)
    assert not any(RULE in text_of(one) for one in bob.messages)
    with pytest.raises(ConfigError, match="whose run"):
        guard.record_reward("e", 1.0)


# --- Within LangChain ----------------------------------------------------------------------------


async def test_an_agent_streams_words_of_the_model(register: Register, memory: Memory) -> None:
    with client_on(register, once("note", {"text": "who"}, ["It ", "is ", "done."])) as client:  # type: ignore[arg-type]
        guard = ElisionMiddleware(client, memory=memory)
        agent = create_agent(ChatElision(client=client), Tools().all, middleware=[guard])
        asked: Any = {"messages": [HumanMessage("Go.")]}
        pieces = [
            piece.text
            async for piece, _ in agent.astream(asked, stream_mode="messages")
            if piece.type == "AIMessageChunk"
        ]
    assert [piece for piece in pieces if piece] == ["It ", "is ", "done."]


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
def test_structured_answers_come_by_either_strategy(register: Register, strategy: Any) -> None:
    def reply(request: Request) -> Any:
        tools = request.extra.get("tools")
        name = tools[0]["function"]["name"] if tools else ""
        return called(name, {"name": "Rome"}) if tools else '{"name": "Rome"}'

    with client_on(register, reply) as client:
        agent = create_agent(
            ChatElision(client=client),
            [],
            response_format=strategy(City),
            middleware=[ElisionMiddleware(client)],
        )
        assert agent.invoke(GO)["structured_response"] == City(name="Rome")


def test_nothing_that_was_said_is_traced() -> None:
    policy = ElisionMiddleware.trace_policy
    assert policy is not None
    told = {"messages": [HumanMessage(PHRASE)]}
    for process in (policy.process_inputs, policy.process_outputs):
        assert process is not None
        assert PHRASE not in str(process(told))


@pytest.mark.slow
def test_without_langchain_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "from elision.errors import MissingExtraError\n"
        "try:\n    import elision.agents.langchain_agent\n"
        "except MissingExtraError as error:\n    print(error.extra)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "agents\n"
