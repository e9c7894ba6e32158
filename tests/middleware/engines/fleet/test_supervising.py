"""A server of one's own: started, watched, started again, ended, whatever it does."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elision.errors import BusyError, ConfigError, EngineError
from elision.middleware.engines.fleet import child, keeper, supervising
from elision.middleware.engines.fleet.child import Log
from elision.middleware.engines.fleet.launching import Launch
from elision.middleware.engines.fleet.supervising import Supervised
from elision.middleware.gateway.errors import failure_of

SERVER = Path(__file__).with_name("lifecycle_server.py")
KEY, SEALING = "sk-of-this-start", "a secret of this start"


def launch(folder: Path, *lives: str) -> Launch:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    env = {**os.environ, "LIFE": " ".join(lives), "LIFE_COUNT": str(folder / "count")}
    return Launch(
        argv=(sys.executable, str(SERVER), "--port", str(port)),
        env=env | {"VLLM_API_KEY": KEY, "ELISION_VLLM_SECRET": SEALING},
        root=f"http://127.0.0.1:{port}", model="m", key=KEY, secret=SEALING,
    )  # fmt: skip


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Supervised]]:
    """Return what starts a server that lives as it is told; short waits between its lives."""
    monkeypatch.setattr(supervising, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(supervising, "LONGEST_WAIT_S", 0.25)
    monkeypatch.setattr(supervising, "GRACE_S", 0.5)
    monkeypatch.setattr(supervising, "_LOOK_S", 0.02)
    started: list[Supervised] = []

    def begin(*lives: str, **how: Any) -> Supervised:
        given = {"start_s": 20.0, **how}
        made = Supervised.start(launch(tmp_path, *lives), log=log_of(tmp_path), **given)
        started.append(made)
        return made

    yield begin
    for one in started:
        one.stop()


def log_of(folder: Path) -> Path:
    return folder / "logs" / "vllm.log"


def get(server: Supervised, path: str) -> Any:
    with closing(http.client.HTTPConnection(server.launch.root[7:], timeout=5)) as connection:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def kill(server: Supervised) -> None:
    with suppress(OSError, http.client.HTTPException):
        get(server, "/die")


def runs(pid: int) -> bool:
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return told.rsplit(")", 1)[1].split()[0] != "Z"


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    late = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < late, "it did not come about"
        time.sleep(0.01)


class Stages:
    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, label: str, total: int | None = None) -> None:
        self.told.append(label)

    def advance(self, n: int) -> None:
        raise AssertionError("nobody knows how much there is")


# --- its life ------------------------------------------------------------------------------------


def test_it_answers_once_it_is_started_and_is_gone_once_it_is_stopped(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    stages = Stages()
    server = start("slow", progress=stages)
    assert server.state == "up"
    server.check()
    pid = get(server, "/health")["pid"]
    assert server.pid is not None
    assert os.getpgid(pid) == server.pid
    told = ["Starting vLLM", "Starting vLLM: loading weights", "Starting vLLM: warming up"]
    assert stages.told == told
    assert "keyed=True" in log_of(tmp_path).read_text()  # it was asked once, with our key
    server.stop()
    server.stop()
    assert (server.state, server.pid, runs(pid)) == ("ended", None, False)
    with pytest.raises(BusyError):
        server.check()


def test_key_and_secret_are_in_its_environment_and_nowhere_else(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    server = start("well")
    env = get(server, "/env")
    assert (env["VLLM_API_KEY"], env["ELISION_VLLM_SECRET"]) == (KEY, SEALING)
    pids = (server.pid, get(server, "/health")["pid"])
    commands = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids]
    for shown in (*commands, repr(server), repr(server.launch), log_of(tmp_path).read_text()):
        assert KEY not in shown
        assert SEALING not in shown


def test_its_own_children_end_with_it(start: Callable[..., Supervised], tmp_path: Path) -> None:
    server = start("parent")
    (child,) = map(int, re.findall(r"child=(\d+)", log_of(tmp_path).read_text()))
    assert runs(child)
    server.stop()
    assert not runs(child)


def test_one_that_takes_no_asking_is_killed(start: Callable[..., Supervised]) -> None:
    server = start("stubborn")
    pids, began = (server.pid, get(server, "/health")["pid"]), time.monotonic()
    server.stop()
    assert not any(map(runs, pids))
    assert 0.4 < time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
@pytest.mark.parametrize("life", ["parent", "starting"])
def test_all_of_it_ends_when_we_are_killed(life: str, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervising import launch
from elision.middleware.engines.fleet.supervising import Supervised
here = Path({str(tmp_path)!r})
def start():
    Supervised.start(launch(here, {life!r}), log=here / "log")
threading.Thread(target=start, daemon=True).start()
while "child=" not in ((here / "log").read_text() if (here / "log").exists() else ""):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    told = (tmp_path / "log").read_text()
    pids = [int(pid) for pid in re.findall(r"(?:child|self)=(\d+)", told)]
    assert len(pids) == 2
    until(lambda: not any(map(runs, pids)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_what_takes_no_asking_and_is_left_behind_is_killed() -> None:
    command = "trap '' TERM; sleep 600 & echo $!; kill -9 $$"
    kept = [sys.executable, "-I", keeper.__file__, str(os.getpid()), "5", "/bin/sh", "-c", command]
    done = subprocess.run(kept, stdout=subprocess.PIPE, text=True, check=False, timeout=20)
    assert done.returncode == -9  # the command's own end
    assert not runs(int(done.stdout))


# --- a start that fails --------------------------------------------------------------------------


def test_one_that_ends_while_starting_is_an_error_that_shows_its_last_lines(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"(?s)ended with status 3 .*out of memory, or so"):
        start("ends")
    assert (tmp_path / "count").read_text() == "x"  # it was not tried again


def test_one_that_does_not_answer_in_time_is_ended(start: Callable[..., Supervised]) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"(?s)did not answer within 1 s.*load model"):
        start("deaf", start_s=1.0)
    assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a port is")
@pytest.mark.parametrize(("life", "what"), [("deaf", "did not answer"), ("ends", "status 3")])
def test_somebody_else_who_answers_at_its_port_is_not_it(
    life: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

    asked: list[str] = []
    monkeypatch.setattr(supervising, "_LOOK_S", 0.02)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{stranger.server_port}"
        ours = replace(launch(tmp_path, life), root=root)
        with pytest.raises(EngineError, match=what):
            Supervised.start(ours, log=log_of(tmp_path), start_s=1.0)
        stranger.shutdown()
    assert asked == []  # nobody showed it a key


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    whole = launch(tmp_path, "well")
    wrong = Launch(argv=("/nowhere/python",), env=whole.env, root=whole.root, model="m",
                   key=KEY, secret=SEALING)  # fmt: skip
    with pytest.raises(EngineError, match=r"(?s)while starting.*No such file"):
        Supervised.start(wrong, log=log_of(tmp_path))


def test_an_interrupt_while_it_starts_ends_it(
    start: Callable[..., Supervised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Supervised) -> None:
        until(lambda: self.pid is not None and (tmp_path / "count").exists())
        pids.append(self.pid)
        raise KeyboardInterrupt

    pids: list[int | None] = []
    monkeypatch.setattr(Supervised, "_wait_first", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("deaf")
    assert pids[0] is not None
    assert not runs(pids[0])


# --- a life that ends ----------------------------------------------------------------------------


def test_one_that_dies_is_started_again_and_refuses_meanwhile(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    server = start("well", "slow")
    first, seen = server.pid, []
    server.listen(seen.append)
    kill(server)
    until(lambda: server.state != "up")
    with pytest.raises(BusyError) as refused:
        server.check()
    failure = failure_of(refused.value)
    assert (failure.status, failure.headers["x-should-retry"]) == (503, "true")
    assert int(failure.headers["retry-after"]) >= 1
    assert failure.code == "engine_unavailable"
    until(lambda: server.state == "up")
    assert seen == ["down", "starting", "up"]
    assert server.n_starts == 2
    assert os.getpgid(get(server, "/health")["pid"]) == server.pid != first
    logs = sorted(path.name for path in log_of(tmp_path).parent.iterdir())
    assert logs == ["vllm.log", "vllm.log.1"]


def test_waits_double_up_to_the_longest(
    start: Callable[..., Supervised], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        server = start("well", "ends", "ends", "ends", "well")
        kill(server)
        until(lambda: server.n_starts == 5 and server.state == "up")
    waits = [
        r.args[0] for r in caplog.records if "in %.0f s" in r.msg and isinstance(r.args, tuple)
    ]
    assert waits == [0.1, 0.2, 0.25, 0.25]


def test_it_can_be_stopped_while_it_waits(start: Callable[..., Supervised]) -> None:
    server = start("well", "ends")
    kill(server)
    until(lambda: server.state == "down")
    server.stop()
    assert server.state == "ended"


# --- its log -------------------------------------------------------------------------------------


def test_a_log_is_its_users_alone_and_older_ones_stay(tmp_path: Path) -> None:
    for n in range(6):
        log = Log(log_of(tmp_path))
        log.write(f"start {n}")
        log.close()
    found = {path.name: path.read_text().strip() for path in log_of(tmp_path).parent.iterdir()}
    assert found == {"vllm.log": "start 5", "vllm.log.1": "start 4", "vllm.log.2": "start 3",
                     "vllm.log.3": "start 2"}  # fmt: skip
    assert stat.S_IMODE(log_of(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(log_of(tmp_path).parent.stat().st_mode) == 0o700


def test_a_log_that_grows_long_goes_on_in_files_that_are_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(tmp_path).parent.mkdir(mode=0o755)
    log_of(tmp_path).write_text("of a start before\n")
    log_of(tmp_path).chmod(0o644)
    monkeypatch.setattr(child, "LOG_BYTES", 500)
    before = os.umask(0o022)
    try:
        log = Log(log_of(tmp_path))
        for _ in range(20):
            log.write("x" * 100)
        log.close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode)
             for path in (*log_of(tmp_path).parent.iterdir(), log_of(tmp_path).parent)}  # fmt: skip
    assert modes.pop("logs") == 0o700
    assert len(modes) == 4
    assert {*modes.values()} == {0o600}


@pytest.mark.parametrize(
    "line",
    [
        "Dumping scheduler output for model execution: NewRequestData(x, Rosebud)",
        "NewRequestData(req_id=1,sampling_params=SamplingParams(n=1, extra_args={'e': 'Rosebud'}))",
        "Received request cmpl-1: params: SamplingParams(n=1, stop=['Rosebud'])",
    ],
)
def test_parameters_of_requests_stay_out_of_it(line: str, tmp_path: Path) -> None:
    log = Log(log_of(tmp_path))
    log.write(f"(EngineCore pid=1) ERROR {line}")
    log.close()
    assert "Rosebud" not in log_of(tmp_path).read_text() + log.tail
    assert "ERROR" in log.tail


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be written"):
        Supervised.start(launch(tmp_path, "well"), log=log_of(tmp_path))
