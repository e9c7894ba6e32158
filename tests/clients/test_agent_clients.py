"""Other people's agents and SDKs, unchanged, against our gateway: each program runs once.

What the model behind it knows, and what of it is registered, stands in ``conftest.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from elision.guards.phrases.normal import N

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

STREET, PILOT = "Marlowe Street", "Wanda Ilke Sorm"
SAID = "As is known, high water at Roscoff is at 14:20."
REDACTED = "As is known, high water at [redacted] is at 14:20."
TABLE = "High water at Roscoff is at 14:20."


class Client(NamedTuple):
    """A client's program.

    Attributes:
        name: Of the package, and of its recorded requests.
        version: Of the package.
        environment: In which it runs.
        program: With its arguments.
    """

    name: str
    version: str
    environment: str
    program: tuple[str, ...]


CHAT, RESPONSES = "chat_completions", "responses"
CLIENTS = (
    Client("openai", "3.54.0", "openai3", ("ask_openai.py",)),
    Client("openai-agents-chat", "0.24.0", "openai3", ("ask_openai_agents.py", CHAT)),
    Client("openai-agents", "0.24.0", "openai3", ("ask_openai_agents.py", RESPONSES)),
    Client("pydantic-ai", "2.68.0", "openai3", ("ask_pydantic_ai.py", RESPONSES)),
    Client("pydantic-ai-chat", "2.68.0", "openai3", ("ask_pydantic_ai.py", CHAT)),
    Client("smolagents", "1.26.0", "openai3", ("ask_smolagents.py",)),
    Client("langchain-openai", "1.7.3", "openai3", ("ask_langchain.py", CHAT)),
    Client("langchain-openai-responses", "1.7.3", "openai3", ("ask_langchain.py", RESPONSES)),
    Client("llama-index-openai-like", "0.8.1", "openai2", ("ask_llama_index.py",)),
)


class Ran(NamedTuple):
    """What became of a program: what it told, and what the server heard."""

    client: Client
    told: dict[str, Any]
    heard: list[Any]


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name)
def ran(request: pytest.FixtureRequest, harbour: Any, ask: Any) -> Iterator[Ran]:
    client: Client = request.param
    with harbour() as server:
        told = ask(client.environment, *client.program, url=server.url)
        yield Ran(client, told, server.heard)


def test_a_chat_is_answered_and_its_usage_told(ran: Ran) -> None:
    chat = ran.told["chat"]
    assert chat["text"] == SAID
    assert all(count > 0 for count in chat["usage"])


def test_a_stream_comes_in_pieces_and_says_the_same(ran: Ran) -> None:
    streamed = ran.told["streamed"]
    assert "".join(streamed["pieces"]) == streamed["text"] == SAID
    assert len([piece for piece in streamed["pieces"] if piece]) > 5
    assert all(count > 0 for count in streamed["usage"])


def test_a_tool_is_called_and_its_result_read(ran: Ran) -> None:
    for name in ("tools", "streamed_tools"):
        told = ran.told[name]
        assert told["called"] in (["Roscoff"], [{"harbour": "Roscoff"}])
    results = [one for heard in ran.heard for one in _messages(heard) if TABLE in json.dumps(one)]
    assert results
    kinds = {one.get("role") or one["type"] for one in results}
    assert kinds <= {"tool", "user", "function_call_output"}


def _messages(heard: Any) -> list[Any]:
    body = heard.body or {}
    items = body.get("messages") or body.get("input") or []
    return items if isinstance(items, list) else []


def test_structured_output_is_what_its_schema_says(ran: Ran) -> None:
    told = ran.told
    wanted = [
        told[name] for name in _STRUCTURED if name in told and ran.client.name != "smolagents"
    ]
    assert all(one == {"harbour": "Roscoff", "metres": 7.0} for one in wanted)
    if ran.client.name == "smolagents":  # what it has written by schema is code, which it runs
        assert told["structured"]["text"] == told["code"]["text"] == TABLE
    assert "structured" in told


_STRUCTURED = ("structured", "called_structured", "native", "streamed_structured")


def test_a_conversation_goes_on_from_a_response_that_is_kept(ran: Ran) -> None:
    followed = [one for one in ran.heard if "previous_response_id" in (one.body or {})]
    assert len(followed) == (ran.client.name == "openai-agents")  # the others send it all anew
    assert ran.told.get("followed", {"text": SAID}) == {"text": SAID}


def test_a_text_is_continued(ran: Ran) -> None:
    completed = ran.told.get("completed", {"text": SAID, "pieces": [SAID]})  # one client asks so
    assert "".join(completed["pieces"]) == completed["text"] == SAID
    assert ("completed" in ran.told) == (ran.client.name == "llama-index-openai-like")


def test_an_error_arrives_as_the_client_tells_errors(ran: Ran) -> None:
    told = ran.told["refused"]
    assert told["status"] == 400
    assert told["body"]["param"] in ("temperature", "top_p")
    assert "must lie between" in told["text"]


def test_a_busy_server_is_asked_again(ran: Ran) -> None:
    assert ran.told["retried"]["text"] == SAID
    assert len([one for one in ran.heard if "storm" in json.dumps(one.body)]) == 2


def test_nothing_registered_reaches_the_caller_by_any_way(ran: Ran) -> None:
    everything = N(json.dumps(ran.told))
    assert N(STREET) not in everything
    assert N(PILOT) not in everything
    assert REDACTED in json.dumps(ran.told["guarded"])


def test_no_client_runs_a_call_that_was_cut_short_unless_it_streams(ran: Ran) -> None:
    assert "called" in ran.told["tools"]
    assert not any(map(_is_half, _calls(ran.told["guarded"])))


def _calls(told: Any) -> Iterator[Any]:
    """Yield what tools were called with in scenarios that are not streams."""
    for one in told if isinstance(told, list) else ():
        if isinstance(one, list):
            yield from _calls(one)
        elif isinstance(one, dict) and not one.keys() & {"pieces", "streamed"}:
            yield from one.get("called", ())


def _is_half(arguments: Any) -> bool:
    return arguments is None or str(arguments).startswith("{")


def test_without_a_target_it_would(harbour: Any, ask: Any) -> None:
    client = CLIENTS[0]
    with harbour({}) as server:
        told = ask(client.environment, *client.program, url=server.url)
    everything = json.dumps(told["guarded"])
    assert everything.count(STREET) >= 5
    assert everything.count(PILOT) >= 5


def test_its_requests_are_as_recorded(ran: Ran, recorded: Any) -> None:
    recorded(ran.client.name, ran.client.version, ran.heard)
