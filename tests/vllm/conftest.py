"""One real vLLM for all tests of a session, on loopback, with the embedded model in float32."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PYTHON: Final = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
N_CONTEXT: Final = 2048
READY_S: Final = 240.0
KEY: Final = "sk-not-a-secret"

_OPTIONS: Final = (
    "--host 127.0.0.1 --dtype float32 --max-num-seqs 16 --kv-cache-memory-bytes 1G "
    "--enforce-eager --block-size 32 --enable-scale-out --served-model-name smollm2"
).split()


@dataclass(frozen=True, slots=True)
class Server:
    """A vLLM that runs.

    Attributes:
        root: Its address, without ``/v1``.
        model: What it calls its model.
        folder: Where that lies.
    """

    root: str
    model: str
    folder: Path

    def n_running(self) -> int:
        """Return how many requests its engine works on."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as answer:
            told = answer.read().decode()
        found = re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", told, re.MULTILINE)
        return sum(int(float(one)) for one in found)


@pytest.fixture(scope="session")
def vllm(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Lend the server; it takes about a minute to start, and is ended by its process id.

    Without ``.venv-vllm`` the test is skipped; where it must be there (``ELISION_REQUIRE_VLLM``
    set), the test fails.
    """
    if not PYTHON.exists():
        missing = "there is no .venv-vllm; run: make test-vllm"
        if os.environ.get("ELISION_REQUIRE_VLLM"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("vllm")
    port = _free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", *_OPTIONS),
                *("--model", smollm2_dir, "--max-model-len", str(N_CONTEXT)),
                *("--port", str(port), "--api-key", KEY),
            ],
            cwd=folder,
            env=_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", "smollm2", smollm2_dir)
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    return kept | quiet | {"VLLM_CACHE_ROOT": str(folder / "cache")}


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _warm(server: Server) -> None:
    """Have it answer once: the first answer takes seconds, longer than a probe waits."""
    body = b'{"model": "smollm2", "prompt": "Hello", "max_tokens": 2, "logprobs": 5}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    asked = urllib.request.Request(f"{server.root}/v1/completions", body, headers)
    with urllib.request.urlopen(asked, timeout=120) as answer:
        answer.read()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    late = time.monotonic() + READY_S
    while time.monotonic() < late and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.root}/health", timeout=5):
                return _warm(server)
        except OSError:
            time.sleep(0.5)
    told = log.read_text(errors="replace")[-4000:]
    pytest.fail(f"vLLM did not start within {READY_S:.0f} s; the end of its log:\n{told}")
