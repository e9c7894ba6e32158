"""The process: where it listens, what it says, how it ends."""

from __future__ import annotations

import io
import logging
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elision.errors import ConfigError
from elision.middleware.gateway.auth import is_loopback
from elision.middleware.gateway.serve import check_exposure, greeting, log_to_stderr
from elision.settings import Settings

_PROGRAM = """
import sys
from pathlib import Path
from elision.guards.register.register import Register
from elision.middleware.gateway import serve
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.text_engine import TextEngine

home = Path(sys.argv[1])
pipeline = Pipeline(engines={"text": TextEngine("Hello there.")}, register=Register.open(home))
serve(pipeline, Settings(home=home, port=0))
print("closed" if not pipeline.ready else "still open")
"""


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"host": "example.org"}, False),
        ({"host": ""}, False),
        ({"host": "0.0.0.0", "api_key": "k"}, True),
        ({"host": "0.0.0.0", "allow_open": True}, True),
    ],
)
def test_an_open_address_needs_a_key_or_a_word(
    home: Path, settings: dict[str, Any], allowed: bool
) -> None:
    wanted = Settings(**settings)
    if allowed:
        check_exposure(wanted)
        return
    with pytest.raises(ConfigError, match="ELISION_API_KEY"):
        check_exposure(wanted)


def test_a_name_that_only_looks_like_loopback_is_not() -> None:
    hosts = ("127.0.0.1.evil.example", "localhost.evil.example", "128.0.0.1", "0.0.0.0", "")
    assert not any(map(is_loopback, hosts))
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]")))


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(served: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another port"), served(port=port):
            pass


def test_the_greeting_is_a_command_that_a_shell_runs() -> None:
    text = greeting("http://127.0.0.1:1", "m", keyed=True)

    assert "http://127.0.0.1:1/v1/chat/completions" in text
    command = text.split("\n\n", 1)[1]
    shell = subprocess.run(
        ["sh", "-c", f'curl() {{ printf "%s\\n" "$@"; }}\n{command}'],
        env={"ELISION_API_KEY": "k"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "authorization: Bearer k" in shell.stdout
    assert '{"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}' in shell.stdout


@pytest.fixture
def process(home: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", _PROGRAM, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(
    process: subprocess.Popen[str], stop: signal.Signals
) -> None:
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found is not None
    with urllib.request.urlopen(found[0] + "/readyz", timeout=10) as answer:
        assert answer.status == 200

    process.send_signal(stop)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out.endswith("closed\n")
    assert "Traceback" not in err
    assert "route='/readyz' status=200" in err


def test_the_server_closes_the_pipeline_it_was_given(served: Any) -> None:
    with served() as server:
        assert server.pipeline.ready

    assert server.engine.closed
    assert not server.pipeline.ready


def test_log_lines_go_to_what_standard_error_is_then_and_other_handlers_stay_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = [logging.getLogger(name) for name in ("elision", "uvicorn")]
    before = [(one.handlers[:], one.level, one.propagate) for one in ours]
    foreign, closed = logging.NullHandler(), []
    monkeypatch.setattr(foreign, "close", lambda: closed.append(True))
    try:
        for _ in range(2):
            log_to_stderr()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", now := io.StringIO())
                logging.getLogger("elision.gateway").info("a line")
                logging.getLogger("uvicorn.access").info("no line")
            assert now.getvalue().count("INFO elision.gateway a line") == 1
            assert "no line" not in now.getvalue()
    finally:
        for one, (handlers, level, propagates) in zip(ours, before, strict=True):
            one.handlers[:], one.propagate = handlers, propagates
            one.setLevel(level)
    assert closed == []


def test_without_its_packages_the_gateway_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from elision.errors import MissingExtraError\n"
        "try:\n    import elision.middleware.gateway\n"
        "except MissingExtraError as exc:\n    print(exc.extra, exc)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert told.stdout.startswith("serve 'fastapi' is not installed")
