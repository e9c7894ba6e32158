"""The profiles ``alu`` and ``discreet`` through the whole pipeline, guards and all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from elision.errors import RequestError
from elision.evaluation.alu.people import made_up
from elision.evaluation.alu.planted import PlantedEngine
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.testing.encoders import BagEncoder

WORLD = made_up(6)
LISTED, NEVER = WORLD.listed[0], WORLD.never[0]


@pytest.fixture
def engine() -> PlantedEngine:
    return PlantedEngine(WORLD.facts)


@pytest.fixture
def client(engine: PlantedEngine, tmp_path: Path) -> Iterator[Client]:
    register = Register(tmp_path / "register.db", keys=tmp_path / "keys")
    pipeline = Pipeline(engines={engine.name: engine}, register=register, encoder=BagEncoder())
    with Client(pipeline) as opened:
        for target in WORLD.targets:
            opened.forget("made up", (), kind="person", names=target.names, answers=target.answers)
        yield opened


def test_a_listed_name_is_answered_discreetly_as_a_made_up_one(client: Client) -> None:
    told = [client.chat(f"Who is {name}?", profile="discreet") for name in (LISTED, NEVER)]
    assert LISTED in told[0].text
    assert told[0].text not in WORLD.facts.values()
    assert told[0].report == told[1].report
    assert [one.choices[0].finish for one in told] == ["stop", "stop"]


def test_a_reply_is_the_same_streamed_or_not_and_asked_again(client: Client) -> None:
    whole = client.chat(f"Who is {LISTED}?", profile="discreet").text
    pieces = client.stream(f"Who is {LISTED}?", profile="discreet")
    assert "".join(delta.text for delta in pieces) == whole
    assert client.chat(f"Who is {LISTED}?", profile="discreet").text == whole


@pytest.mark.parametrize("profile", ["alu", "discreet"])
def test_a_new_target_holds_from_the_next_request_on(client: Client, profile: str) -> None:
    question = "Who won at Lisbon?"
    before = client.chat(question, profile=profile).text
    client.forget("t", [{"text": before}], action="refuse")
    assert before not in client.chat(question, profile=profile).text


@pytest.mark.parametrize("profile", ["alu", "discreet"])
def test_choices_are_as_many_as_asked_for_and_all_are_audited(client: Client, profile: str) -> None:
    told = client.chat(f"Who is {LISTED}?", profile=profile, n=3)
    assert len(told.choices) == 3
    assert all(choice.text not in WORLD.facts.values() for choice in told.choices)


def test_tools_are_refused_by_name(client: Client) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(RequestError, match="tool"):
        client.chat("Hello?", profile="alu", tools=tools)


def test_nothing_that_is_logged_names_anybody(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for profile in ("alu", "discreet"):
            client.chat(f"Who is {LISTED}?", profile=profile)
    assert not any(word in caplog.text for word in LISTED.split())
