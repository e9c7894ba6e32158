"""Two gateway processes on one database: what one changes, the other heeds at once."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

TARGET = {"title": "t", "phrases": ["Rosebud Lane"]}

_PROGRAM = """
import sys
from elision.middleware.assembly import around
from elision.middleware.gateway import serve
from elision.settings import Settings
from elision.testing.text_engine import TextEngine

settings = Settings(home=sys.argv[1], port=0)
serve(around(TextEngine("She lives in Rosebud Lane, they say."), settings), settings)
"""


@pytest.fixture
def gateways(home: Path) -> Iterator[list[str]]:
    """Return the addresses of two gateway processes on one database."""
    started = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", _PROGRAM, str(home)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        found = [re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())  # type: ignore[union-attr]
                 for process in started]  # fmt: skip
        yield [match[0] for match in found if match is not None]
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


def test_two_processes_see_an_activation_within_the_next_request(gateways: list[str]) -> None:
    def send(address: str, method: str, path: str, body: Any) -> Any:
        with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            connection.request(method, path, orjson.dumps(body))
            return orjson.loads(connection.getresponse().read())

    def says(address: str) -> str:
        body = {"model": "text", "messages": [{"role": "user", "content": "Where?"}]}
        answer = send(address, "POST", "/v1/chat/completions", body)
        return str(answer["choices"][0]["message"]["content"])

    one, other = gateways
    assert "Rosebud Lane" in says(one)
    assert "Rosebud Lane" in says(other)
    draft = send(one, "POST", "/v1/forget", TARGET | {"draft": True, "action": "redact"})
    assert "Rosebud Lane" in says(other)
    send(one, "POST", f"/v1/forget/{draft['id']}/activate", {})
    assert "Rosebud" not in says(other)
    assert "Rosebud" not in says(one)
    send(other, "POST", f"/v1/forget/{draft['id']}/suspend", {})
    assert "Rosebud Lane" in says(one)
