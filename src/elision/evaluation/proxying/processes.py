"""Processes of a bench: started, asked for their address, measured, ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import orjson

from elision.errors import EngineError
from elision.evaluation.proxying.client import Load, Seen
from elision.evaluation.proxying.script import MODEL

_ADDRESS = re.compile(r"http://[0-9.]+:\d+(?:/v1)?")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START_S = 60.0


class Server:
    """A server process. Lives until `end`.

    Attributes:
        url: Its base address, with ``/v1``.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url if url.endswith("/v1") else f"{url}/v1"
        self._process = process

    def cpu_s(self) -> float:
        """Return the processor time that it has used, user and system, all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        """Return the memory that it has resident, in MB."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * _PAGE / 1e6

    def post(self, path: str, value: object) -> None:
        """Post *value* as JSON to *path*, which is below ``/v1``.

        Raises:
            urllib.error.HTTPError: If it is refused.
        """
        data = orjson.dumps(value)
        request = urllib.request.Request(  # noqa: S310 -- our own address
            self.url + path, data, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 -- likewise
            answer.read()


class Client:
    """A client process. Lives until `end`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, load: Load) -> Seen:
        """Put *load* on its server, to its end.

        Raises:
            EngineError: If the process ends before it.
        """
        ask, answers = self._process.stdin, self._process.stdout
        assert ask is not None
        assert answers is not None
        ask.write(orjson.dumps(asdict(load)).decode() + "\n")
        ask.flush()
        if not (line := answers.readline()):
            raise EngineError("the client process of the bench ended")
        return Seen(**orjson.loads(line))


@contextmanager
def upstream(*, n_pieces: int, gap_ms: float) -> Iterator[Server]:
    """Run a scripted upstream."""
    module = "elision.evaluation.proxying.upstream"
    command = [sys.executable, "-m", module, str(n_pieces), str(gap_ms)]
    with running(command) as process:
        yield Server(process, _address(process))


@contextmanager
def bare(upstream: Server) -> Iterator[Server]:
    """Run a relay that does nothing but relay, in front of *upstream*."""
    command = [sys.executable, "-m", "elision.evaluation.proxying.bare", upstream.url]
    with running(command) as process:
        yield Server(process, _address(process))


@contextmanager
def elision(upstream: Server, *, profile: str) -> Iterator[Server]:
    """Run ``elision serve`` in front of *upstream*, with an empty register."""
    options = ("--model", MODEL, "--profile", profile, "--upstream", upstream.url)
    with serving(*options) as server:
        yield server


@contextmanager
def serving(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run ``elision serve`` with *options*, an empty register, and no settings but *env*."""
    main = "from elision.cli import main; main()"
    command = [sys.executable, "-c", main, "serve", "--port", "0"]
    with tempfile.TemporaryDirectory() as home:
        settings = {**_own_settings(), **(env or {})}
        with running([*command, "--home", home, *options], settings) as process:
            yield Server(process, _address(process))


@contextmanager
def client() -> Iterator[Client]:
    """Run a client."""
    with running([sys.executable, "-m", "elision.evaluation.proxying.client"]) as process:
        yield Client(process)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run *command*, its standard output to be read; killed at the end."""
    process = subprocess.Popen(  # noqa: S603 -- our own modules
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=None if environment is None else dict(environment),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _own_settings() -> dict[str, str]:
    """Return the environment without settings of ours: the bench's are the defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ELISION_")}


def _address(process: subprocess.Popen[str]) -> str:
    """Return the address that *process* prints.

    Raises:
        EngineError: If it ends, or says nothing for a minute.
    """
    assert process.stdout is not None
    timer = threading.Timer(_START_S, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            if found := _ADDRESS.search(line):
                return found[0]
    finally:
        timer.cancel()
    raise EngineError("a process of the bench ended before it listened")


def wait_for(url: str, *, seconds: float = 120.0) -> bool:
    """Wait until *url* answers with 200; say whether it does in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 -- our own
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.5)
    return False
