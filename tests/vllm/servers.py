"""Real vLLM servers on loopback, with the embedded model in float32: one runs at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.lending import lent
from elision.middleware.engines.fleet.ordering import wire
from elision.middleware.engines.plugin.orders import Order

PYTHON: Final = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
N_CONTEXT: Final = 2048
N_SMALL_CONTEXT: Final = 1024
"""Of a server of the kind ``proposing``."""
READY_S: Final = 240.0
KEY: Final = "sk-not-a-secret"
SECRET: Final = "seals the orders of these tests"
PROPOSER: Final = "elision.middleware.engines.plugin.proposer.ElisionProposer"

_OPTIONS: Final = (
    "--host 127.0.0.1 --dtype float32 --max-num-seqs 16 --kv-cache-memory-bytes 1G "
    "--enforce-eager --block-size 32 --enable-scale-out --served-model-name smollm2 smollm2-135m"
).split()
_PROCESSED: Final = ("--logprobs-mode", "processed_logprobs")
_TIGHT: Final = (
    f"--max-model-len {N_SMALL_CONTEXT} --max-num-batched-tokens 896 --num-gpu-blocks-override 44"
).split()
"""Steps of 896 tokens, and keys and values for 1400: long prompts are cut, and six replies of 290
tokens do not fit, so some are put off and start again.

No seeded prompt may be cut: vLLM 0.32 on a CPU then ends with "CPU Generator does not use offset".
"""


def _drafting(**how: Any) -> tuple[str, str]:
    return "--speculative-config", json.dumps(how)


_FLAGS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "plugged": _PROCESSED,
        "bare": (),
        "raw": (),
        "proposing": (
            *(*_PROCESSED, *_TIGHT),
            *_drafting(method="custom_class", model=PROPOSER, num_speculative_tokens=4),
        ),
        "speculating": (
            *_PROCESSED,
            *_drafting(method="ngram", num_speculative_tokens=3, prompt_lookup_max=4),
        ),
    }
)
KINDS: Final = tuple(_FLAGS)
"""What sorts there are, in the order in which tests use them.

``bare`` is vLLM as it comes. To all others our package is lent, and they refuse requests without a
sealed order: ``plugged`` tells log-probabilities as they are after the plug-in, ``raw`` those
before it; ``proposing`` drafts by our proposer, with little room; ``speculating`` by n-grams, where
vLLM's first runner leaves every logits processor out and says nothing.
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A vLLM that runs.

    Attributes:
        root: Its address, without ``/v1``.
        model: What it calls its model.
        folder: Where that lies.
        log: What it writes.
        kind: One of `KINDS`.
        proofs: What it was seen to do, by how it was asked; of this start of it.
    """

    root: str
    model: str
    folder: Path
    log: Path
    kind: str = "bare"
    proofs: dict[Hashable, Proof] = field(default_factory=dict, compare=False, repr=False)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.root.rpartition(":")[2])

    @property
    def secret(self) -> str | None:
        """What orders are sealed with here."""
        return None if self.kind == "bare" else SECRET

    def n_running(self) -> int:
        """Return how many requests its engine works on."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as answer:
            told = answer.read().decode()
        found = re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", told, re.MULTILINE)
        return sum(int(float(one)) for one in found)

    def ask(self, path: str, body: Mapping[str, Any], *, timeout_s: float = 60.0) -> Answer:
        """Return what it answers to *body* at *path*, whatever its status."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        data = json.dumps({"model": self.model, **body}).encode()
        asked = urllib.request.Request(f"{self.root}{path}", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, refused.read().decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: Of HTTP.
        told: The body.
    """

    status: int
    told: str

    @property
    def body(self) -> dict[str, Any]:
        """The body, read as JSON."""
        return dict(json.loads(self.told))

    @property
    def texts(self) -> list[str]:
        """What its choices say."""
        found = self.body["choices"]
        return [one["text"] if "text" in one else one["message"]["content"] or "" for one in found]


def ordered(order: Order, *, secret: str = SECRET) -> dict[str, Any]:
    """Return the field under which *order* travels, sealed."""
    return {"vllm_xargs": wire(order, secret)}


class Servers:
    """Starts servers as tests need them; before one starts, the other is ended.

    Args:
        model: The folder of the model.
        folder: Where logs and what vLLM keeps between starts go.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._turn: AbstractContextManager[Server] | None = None
        self._running: Server | None = None

    def of(self, kind: str) -> Server:
        """Return a running server of *kind*."""
        if self._running is None or self._running.kind != kind:
            self.start(kind)
        assert self._running is not None
        return self._running

    def start(self, kind: str, *, port: int | None = None) -> Server:
        """Return a server of *kind* that was started just now, if wanted where another was."""
        self.end()
        self._turn = serving(kind, model=self._model, folder=self._folder, port=port)
        self._running = self._turn.__enter__()
        return self._running

    def end(self) -> None:
        """End the one that runs, if one does."""
        turn, self._turn, self._running = self._turn, None, None
        if turn is not None:
            turn.__exit__(None, None, None)


@contextmanager
def serving(
    kind: str, *, model: Path, folder: Path, flags: tuple[str, ...] = (), port: int | None = None
) -> Iterator[Server]:
    """Lend a vLLM of *kind*; it takes most of a minute to start, and is ended by its process id.

    Without ``.venv-vllm`` the test is skipped; where it must be there (``ELISION_REQUIRE_VLLM``
    set), the test fails.

    Args:
        kind: One of `KINDS`.
        model: The folder of its model.
        folder: Where its log goes, and what vLLM keeps between starts.
        flags: Further ones of vLLM's.
        port: Where it listens; None: any that is free.
    """
    if not PYTHON.exists():
        missing = "there is no .venv-vllm; run: make test-vllm"
        if os.environ.get("ELISION_REQUIRE_VLLM"):
            pytest.fail(missing)
        pytest.skip(missing)
    port = port or free_port()
    log = folder / f"{kind}-{port}.log"
    with log.open("ab") as written:
        process = subprocess.Popen(
            [
                *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", *_OPTIONS),
                *("--model", model, "--max-model-len", str(N_CONTEXT), "--port", str(port)),
                *("--api-key", KEY, *_FLAGS[kind], *flags),
            ],
            cwd=folder,
            env=_environment(kind, folder),
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", "smollm2", model, log, kind)
        _wait(server, process)
        yield server
    finally:
        _end(process)


def free_port() -> int:
    """Return a port that nobody listened on just now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _environment(kind: str, folder: Path) -> dict[str, str]:
    dropped = ("PYTHONPATH", "PYTHONSAFEPATH", "ELISION_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    found = kept | quiet | {"VLLM_CACHE_ROOT": str(folder / "cache")}
    if kind != "bare":
        found["PYTHONPATH"] = str(lent(folder))
        found |= {"ELISION_VLLM_SECRET": SECRET, "ELISION_VLLM_REQUIRE": "1"}
    return found


def _warm(server: Server) -> None:
    """Have it answer once: the first answer takes seconds, longer than a probe waits."""
    wanted: dict[str, Any] = {"prompt": "Hello", "max_tokens": 2, "logprobs": 5}
    if server.kind != "bare":
        wanted |= ordered(Order())
    answer = server.ask("/v1/completions", wanted, timeout_s=120)
    if answer.status != 200:
        pytest.fail(f"vLLM ({server.kind}) does not answer: {answer.status} {answer.told[:2000]}")


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    late = time.monotonic() + READY_S
    while time.monotonic() < late and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.root}/health", timeout=5):
                return _warm(server)
        except OSError:
            time.sleep(0.5)
    told = server.log.read_text(errors="replace")[-4000:]
    pytest.fail(f"vLLM did not start within {READY_S:.0f} s; the end of its log:\n{told}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have it end, and whatever it started: the next one needs the memory."""
    process.terminate()
    late = time.monotonic() + 30
    while process.poll() is None or _is_there(process.pid):
        if time.monotonic() > late:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.1)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
