"""A remote engine over several turns, over changes of the register, between tenants and keys."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from elision.middleware.engines.remote import RemoteEngine
from elision.testing.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
NAME = "Ysolde Marchetti"
TARGET: dict[str, Any] = {"title": "t", "phrases": [NAME]}
KEYS = [
    {"name": f"{tenant}-{n}", "key": f"key-{tenant}-{n}", "tenant": tenant,
     "roles": ["service", "operator"]}
    for tenant in ("ours", "theirs")
    for n in (1, 2)
]  # fmt: skip


def turn(body: Mapping[str, Any]) -> list[str]:
    """Answer with what the last message asks to be said."""
    return re.findall(r"\S+\s*", body["messages"][-1]["content"])


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(turn, dialect="llama.cpp") as running:
        yield running


@pytest.fixture
def through(served: Any, upstream: ScriptedUpstream) -> Iterator[Any]:
    engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
    with served(engine, keys=KEYS) as server:
        yield server


def asked(server: Any, say: str, key: str, *, profile: str = "guarded", **options: Any) -> str:
    messages = [{"role": "user", "content": say}]
    body = {"model": f"far@{profile}", "messages": messages, "elision": options}
    status, _, page = server.ask("POST", PATH, body, authorization=f"Bearer {key}")
    assert status == 200
    return str(orjson.loads(page)["choices"][0]["message"]["content"])


def register(server: Any, key: str, **more: Any) -> None:
    status, _, _ = server.ask("POST", "/v1/forget", TARGET | more, authorization=f"Bearer {key}")
    assert status == 201


def test_a_session_does_not_spell_over_turns_what_no_turn_may_say(through: Any) -> None:
    register(through, "key-ours-1")
    said = {
        session: [asked(through, say, "key-ours-1", session=session) for say in turns]
        for session, turns in {
            "a": ["She is Ysolde", "Marchetti."], "b": ["It rains.", "Marchetti."],
        }.items()
    }  # fmt: skip

    assert said["a"][0] == "She is Ysolde"
    assert "Marchetti" not in said["a"][1]
    assert said["b"] == ["It rains.", "Marchetti."], "another session began nothing"


def test_sessions_of_two_tenants_are_two(through: Any) -> None:
    for key in ("key-ours-1", "key-theirs-1"):
        register(through, key)
    assert asked(through, "She is Ysolde", "key-ours-1", session="s") == "She is Ysolde"
    assert asked(through, "Marchetti.", "key-theirs-1", session="s") == "Marchetti."


def test_a_tenants_targets_hold_for_it_alone(through: Any) -> None:
    register(through, "key-theirs-1")

    assert NAME not in asked(through, f"It is {NAME}.", "key-theirs-2")
    assert asked(through, f"It is {NAME}.", "key-ours-1") == f"It is {NAME}."


def test_a_target_may_hold_for_one_key_alone(through: Any) -> None:
    register(through, "key-ours-1", scope={"models": [], "keys": ["ours-2"]})

    assert asked(through, f"It is {NAME}.", "key-ours-1") == f"It is {NAME}."
    assert NAME not in asked(through, f"It is {NAME}.", "key-ours-2")


def test_a_running_stream_keeps_its_epoch_and_the_next_is_guarded(
    through: Any, upstream: ScriptedUpstream
) -> None:
    said = f"{'Once, ' * 20}there was {NAME}."
    body = {
        "model": "far@passthrough",
        "stream": True,
        "messages": [{"role": "user", "content": said}],
    }
    connection = http.client.HTTPConnection(through.url.removeprefix("http://"), timeout=30)
    upstream.delay_s = 0.02
    try:
        connection.request("POST", PATH, orjson.dumps(body), {"authorization": "Bearer key-ours-1"})
        response = connection.getresponse()
        begun = response.readline()
        register(through, "key-ours-1")
        page = begun + response.read()
    finally:
        upstream.delay_s = 0.0
        connection.close()

    assert NAME not in begun.decode()
    assert response.getheader("x-elision-relayed") == "true"
    events = [line[6:] for line in page.splitlines() if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in orjson.loads(event)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == said
    assert NAME not in asked(through, said, "key-ours-1", profile="passthrough")
