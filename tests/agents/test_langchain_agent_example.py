"""The agent's example runs as a newcomer would run it, against a gateway on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elision.middleware.assembly import around
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.gateway.serve import Listener
from elision.settings import Settings
from elision.testing.upstream import ScriptedUpstream

EXAMPLE = Path(__file__).parents[2] / "examples" / "langchain_agent.py"

OWN = {
    "ELISION_ENCODER": ""
}  # memory compares by spelling: sentence-transformers take long to load


def reply(body: Any) -> Any:
    """Look the person up, then say what came back."""
    if "tools" not in body:  # somebody finds out what this server can do
        return "Hello."
    last, (tool,) = body["messages"][-1], body["tools"]
    if last["role"] == "tool":
        return f"The book says: {last['content']}"
    function = {"name": tool["function"]["name"], "arguments": json.dumps({"name": "Ann"})}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return [{"tool_calls": [call]}, {"finish_reason": "tool_calls"}]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    with ScriptedUpstream(reply, model="caller") as upstream:
        settings = Settings(home=tmp_path / "gateway", port=0)
        engine = RemoteEngine(upstream.url, model="caller", probe=False)
        up = threading.Event()
        listener = Listener(around(engine, settings), settings, announce=lambda _: up.set())
        thread = threading.Thread(target=listener.run, daemon=True)
        thread.start()
        assert up.wait(30)
        yield listener.url
        listener.should_exit = True
        thread.join(30)


@pytest.mark.slow
def test_the_agents_example_runs(gateway: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "ELISION_HOME": str(home), "ELISION_URL": gateway, **OWN},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    human, call, result, answer, counts = done.stdout.splitlines()
    assert human == "human: How do I reach Ann?"
    assert call == "ai: [{'name': 'Ann'}]"
    assert result == "tool: Ann: 7 [redacted], telephone 555 0100."
    assert answer == "ai: The book says: Ann: 7 [redacted], telephone 555 0100."
    assert counts == "counts:  True"
