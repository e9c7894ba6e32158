"""``elision serve --engine vllm`` as a process, before a server that lives as a vLLM does.

What it says is no model's, and no plug-in is in it: nothing guarded may be sent there.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from elision.cli import app
from elision.errors import ConfigError
from elision.middleware.assembly import assemble
from elision.middleware.engines.vllm import VllmEngine
from elision.settings import Settings

from .test_lending import BARE, stand_in
from .test_supervising import runs, until

Serve = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "some-model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def serve(home: Path, tmp_path: Path, model: Path) -> Iterator[Serve]:
    """Return what starts the command; its server lives as it is told."""
    started: list[subprocess.Popen[str]] = []

    def begin(*lives: str) -> subprocess.Popen[str]:
        python = stand_in(tmp_path)
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from elision.cli import main; main()", "serve"),
                *("--engine", "vllm", "--port", "0"),
                *("--model", str(model), "--vllm-python", str(python)),
                "--vllm-arg=--tensor-parallel-size=2",
            ],
            env={**os.environ, "LIFE": " ".join(lives), "LIFE_COUNT": str(tmp_path / "count"),
                 "ELISION_ENCODER": "", "ELISION_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ask(address: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"listens on http://(\S+)", line):
            return found[1]
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_it_serves_refuses_what_is_not_proved_and_ends_its_server(
    serve: Serve, home: Path, tmp_path: Path
) -> None:
    process = serve("well")
    address = address_of(process)
    log = (home / "logs" / "vllm.log").read_text()
    assert "'--tensor-parallel-size=2'" in log
    (pid,) = _children(process.pid)
    assert ask(address, "GET", "/readyz")[0] == 200
    assert ask(address, "POST", "/v1/forget", {"title": "t", "phrases": ["Rosebud"]})[0] == 201
    body = {"model": "some-model", "messages": [{"role": "user", "content": "Hello"}]}
    status, told = ask(address, "POST", "/v1/chat/completions", body)
    assert (status, told["error"]["code"]) == (500, "guard_failed_closed")
    assert "Rosebud" not in json.dumps(told)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    until(lambda: not runs(pid))
    assert "Starting vLLM: warming up" in said
    assert "vLLM has ended" in said


@pytest.mark.slow
def test_a_server_that_does_not_start_ends_the_command_with_its_last_lines(serve: Serve) -> None:
    process = serve("ends")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended with status 3 while starting" in said
    assert "out of memory, or so" in said
    assert "Traceback" not in said


def test_without_a_vllm_it_says_how_to_get_one(home: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--engine", "vllm", "--vllm-python", str(BARE)])
    assert isinstance(done.exception, ConfigError)
    assert "pip install vllm" in str(done.exception)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--engine", "other"], "engine: Input should be"),
        (["--engine", "vllm", "--drafts", "tree"], "vllm_drafts: Input should be"),
        (["--engine", "vllm", "--vllm-arg=--api-key=x"], "--api-key is set by elision"),
        (["--engine", "local", "--upstream", "http://127.0.0.1:1/v1"], "leave one of the two out"),
        (["--engine", "vllm", "--assistant", "small=smollm2-135m"], "leave one of the two out"),
    ],
)
def test_what_does_not_go_together_is_refused(given: list[str], match: str, home: Path) -> None:
    done = CliRunner().invoke(app, ["serve", *given])
    assert isinstance(done.exception, ConfigError)
    assert match in str(done.exception)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--drafts", "chain"], "vllm_drafts"),
        (["--vllm-arg=--tensor-parallel-size=2"], "vllm_args"),
    ],
)
def test_flags_for_servers_that_run_already_are_refused(
    given: list[str], name: str, home: Path
) -> None:
    where = ["serve", "--engine", "vllm", "--upstream", "http://127.0.0.1:1/v1"]
    done = CliRunner().invoke(app, [*where, *given])
    assert isinstance(done.exception, ConfigError)
    assert f"{name} is for a vLLM that is started here" in str(done.exception)
    with pytest.raises(ValueError, match="vllm_start_s is for a vLLM"):
        Settings(engine="vllm", replicas={"http://127.0.0.1:1/v1": 1}, vllm_start_s=5)
    Settings(engine="vllm", replicas={"http://127.0.0.1:1/v1": 1}, vllm_start_s=600)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, 86_401])
def test_servers_must_prove_themselves_at_least_once_a_day(seconds: float, home: Path) -> None:
    with pytest.raises(ValueError, match="vllm_prove_s"):
        Settings(vllm_prove_s=seconds)
    assert Settings(vllm_prove_s=86_400).vllm_prove_s == 86_400


def test_replicas_are_servers_of_the_engine_vllm(home: Path) -> None:
    with pytest.raises(ValueError, match="set engine to vllm"):
        Settings(replicas={"http://127.0.0.1:1/v1": 1})
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Settings(engine="vllm", replicas={"http://127.0.0.1:1/v1": -1})
    both = Settings(
        engine="vllm", replicas={"http://127.0.0.1:1/v1": 1}, upstream="http://127.0.0.1:2/v1"
    )
    with pytest.raises(ConfigError, match="leave one of the two out"):
        assemble(both)


@pytest.mark.parametrize(
    ("where", "weights"),
    [
        ({"upstream": "http://127.0.0.1:1/v1"}, {"http://127.0.0.1:1/v1": 1.0}),
        (
            {"replicas": {"http://127.0.0.1:1/v1": 1, "http://127.0.0.1:2/v1": 0}},
            {"http://127.0.0.1:1/v1": 1.0, "http://127.0.0.1:2/v1": 0.0},
        ),
    ],
)
async def test_servers_that_run_become_its_replicas(
    where: dict[str, Any], weights: dict[str, float], home: Path
) -> None:
    secret = "long and random"
    pipeline = assemble(Settings(engine="vllm", model="m", vllm_secret=secret, **where))
    engine = pipeline._engines["m"]
    assert isinstance(engine, VllmEngine)
    assert {one.base_url: one.weight for one in engine.replicas} == weights
    assert {one.secret for one in engine.replicas} == {secret}
    await pipeline.aclose()


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in told for child in file.read_text().split()]
