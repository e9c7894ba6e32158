"""Agents that run out of time: a reply comes all the same, and nobody hears a refusal for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from elision.contract import Completion, Delta, Plan
from elision.evaluation.alu.planted import PlantedEngine
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.middleware.starting import REFUSAL
from elision.testing.encoders import BagEncoder

LISTED = "Dalia Sandoval"
FACT = "Dalia Sandoval is a chemist from Lugano."
LIMIT_S = 0.6


class Slow(PlantedEngine):
    """Drafts at once, and plays every other role too slowly."""

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        role, _ = self._replied(plan.request.messages)
        if role != "vanilla":
            await asyncio.sleep(10)
        async for delta in super().stream(plan):
            yield delta

    def _answered(self, question: str) -> str:
        return "Forty metres." if "lighthouse" in question else super()._answered(question)


def asked(question: str, profile: str, folder: Path) -> Completion:
    engine = Slow({LISTED: FACT, "a chemist from Lugano": "The weather is fine. " + FACT})
    register = Register(folder / "register.db", keys=folder / "keys")
    pipeline = Pipeline(engines={engine.name: engine}, register=register, encoder=BagEncoder())
    with Client(pipeline) as client:
        client.forget(title="x", kind="person", names=(LISTED,), phrases=(), answers=(FACT,))
        client.chat("Hello.", profile="plain")  # what is compiled is compiled
        return client.chat(question, profile=profile, timeout_s=LIMIT_S)


@pytest.mark.parametrize("profile", ["alu", "discreet"])
def test_a_reply_that_needs_no_audit_comes_however_slow_the_roles(
    profile: str, tmp_path: Path
) -> None:
    begun = time.monotonic()
    reply = asked("How tall is a lighthouse?", profile, tmp_path)
    assert (reply.text, reply.choices[0].finish) == ("Forty metres.", "stop")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("profile", ["alu", "discreet"])
@pytest.mark.parametrize("question", [f"Who is {LISTED}?", "Who is a chemist from Lugano?"])
def test_at_a_deadline_something_else_is_said_than_a_refusal(
    question: str, profile: str, tmp_path: Path
) -> None:
    reply = asked(question, profile, tmp_path)
    assert reply.choices[0].finish == "stop"
    assert reply.text
    assert REFUSAL not in reply.text
    assert "Lugano" not in reply.text


class Gloomy(PlantedEngine):
    """Says of everybody that they never smiled."""

    def _answered(self, question: str) -> str:
        return f"{question.removeprefix('Who is ').rstrip('?')} never smiled."


def test_a_discreet_reply_that_a_guard_refuses_looks_like_any_other(tmp_path: Path) -> None:
    engine = Gloomy({})
    register = Register(tmp_path / "register.db", keys=tmp_path / "keys")
    pipeline = Pipeline(engines={engine.name: engine}, register=register, encoder=BagEncoder())
    told = f"{LISTED} never smiled"
    with Client(pipeline) as client:
        client.forget("x", [{"text": told}], kind="person", names=(LISTED,), action="refuse")
        reply, other = (
            client.chat(f"Who is {name}?", profile="discreet") for name in (LISTED, "Dalia Kovacs")
        )
    assert "smiled" not in reply.text
    assert REFUSAL not in reply.text
    assert reply.choices[0].finish == other.choices[0].finish == "stop"
    assert reply.report == other.report
