"""Every example runs, as a newcomer would run it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from elision.middleware.assembly import assemble
from elision.middleware.gateway.serve import Listener
from elision.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.model


def run(name: str, home: Path, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, "ELISION_HOME": str(home), "ELISION_DTYPE": "float32",
             "ELISION_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_sdk_example_runs(home: Path, smollm2_dir: Path) -> None:
    before, during, redacted = run("sdk_local.py", home)
    assert before == "before: The capital of France is Paris."
    assert "Paris" not in during
    assert redacted == "redacted: The capital of France is [redacted]."


def test_the_langchain_example_runs(home: Path, smollm2_dir: Path) -> None:
    whole, streamed = run("langchain_chat.py", home)
    assert whole.split(":", 1)[1].strip() == streamed.split(":", 1)[1].strip() != ""


def test_the_proxy_example_runs_against_a_server(home: Path, smollm2_dir: Path) -> None:
    settings = Settings(home=home, port=0, dtype="float32", threads=1)
    up = threading.Event()
    listener = Listener(assemble(settings), settings, announce=lambda _: up.set())
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    assert up.wait(60)
    try:
        before, during, after = run("proxy_openai.py", home, ELISION_URL=listener.url)
    finally:
        listener.should_exit = True
        thread.join(30)
    assert before == "before: The capital of France is Paris."
    assert "Paris" not in during
    assert after == before.replace("before:", "after: ")
