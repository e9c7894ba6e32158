"""``elision serve --engine vllm`` with a real one: it guards, dies, comes back, guards, ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .servers import PYTHON, Servers

pytestmark = [pytest.mark.vllm, pytest.mark.model]

QUESTION = "What is the capital of France?"
SECRET = "Paris"
READY_S = 200.0


@pytest.fixture
def gateway(alone: Servers, home: Path) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-c", "from elision.cli import main; main()", "serve")
    process = subprocess.Popen(
        [*command, "--engine", "vllm", "--vllm-python", str(PYTHON), "--port", "0"],
        env={**os.environ, "ELISION_DTYPE": "float32", "ELISION_ENCODER": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if found := re.search(r"listens on http://(\S+)", line):
            return found[1]
    raise AssertionError(process.stderr.read())


def ask(address: str, path: str, body: Any) -> tuple[int, Any, Any]:
    with closing(http.client.HTTPConnection(address, timeout=120)) as connection:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers


def says(address: str) -> tuple[int, str, Any]:
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 24,
            "model": "smollm2-135m"}  # fmt: skip
    status, told, headers = ask(address, "/v1/chat/completions", body)
    return status, json.dumps(told.get("choices") or told), headers


def children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in told for child in file.read_text().split()]


def until(what: Callable[[], bool], seconds: float) -> None:
    late = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < late, "it did not come about"
        time.sleep(0.2)


def test_it_guards_dies_comes_back_guards_and_ends(
    gateway: subprocess.Popen[str], home: Path
) -> None:
    address = address_of(gateway)
    assert SECRET in says(address)[1]
    assert ask(address, "/v1/forget", {"title": "t", "phrases": [SECRET]})[0] == 201
    status, said, _ = says(address)
    assert status == 200, said
    assert SECRET not in said

    (pid,) = children(gateway.pid)
    os.kill(pid, signal.SIGKILL)
    seen: list[int] = []

    def is_back() -> bool:
        status, said, headers = says(address)
        assert SECRET not in said
        seen.append(status)
        if status == 503:
            assert int(headers["retry-after"]) >= 1
        return status == 200

    until(is_back, READY_S)
    assert 503 in seen
    (again,) = children(gateway.pid)
    assert again != pid

    family = children(again)
    gateway.send_signal(signal.SIGTERM)
    _, told = gateway.communicate(timeout=60)
    assert gateway.returncode == 0, told[-2000:]
    assert [one for one in (again, *family) if Path(f"/proc/{one}").exists()] == []
    logs = [file.read_text(errors="replace") for file in (home / "logs").iterdir()]
    assert len(logs) == 2
    assert not any(SECRET in log for log in (*logs, told))
