"""A speaking engine behind the real pipeline behind a real server on a loopback port."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from elision.contract import Alternative, Capability, Delta, Plan, TokenLogprob, Usage
from elision.errors import BusyError
from elision.lexicon import TokenizerLexicon
from elision.middleware.agentic.agentic import Agentic
from elision.middleware.assembly import open_register
from elision.middleware.gateway import Listener
from elision.middleware.pipeline import Pipeline
from elision.middleware.remembering import MemorySource, atlas_config, open_memory
from elision.settings import Settings
from elision.testing.encoders import BagEncoder

WORDS = ("Paris", " is", " the", " capital", ".")


class Speaker:
    """Says the same words to everyone, at a pace. It has no scores, so no recipe acts on it.

    Attributes:
        words: What it says, a piece each.
        pause_s: Before each piece.
        room: Requests at a time; one more is turned away.
        error: Raised after two pieces.
        plans: What it was asked.
        n_open: Streams being read.
    """

    name = "speaker"
    capabilities = ~Capability.PASSES
    lexicon = TokenizerLexicon([bytes([byte]) for byte in range(256)])

    def __init__(self) -> None:
        self.words: tuple[str, ...] = WORDS
        self.pause_s = 0.0
        self.room = 8
        self.error: Exception | None = None
        self.plans: list[Plan] = []
        self.n_open = 0
        self.closed = False

    async def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        if self.n_open >= self.room:
            raise BusyError("1 requests are waiting already", retry_after_s=2.5)
        self.plans.append(plan)
        self.n_open += 1
        try:
            async for delta in self._say(plan):
                yield delta
        finally:
            self.n_open -= 1

    async def _say(self, plan: Plan) -> AsyncIterator[Delta]:
        request = plan.request
        words = self.words[: request.max_tokens]
        for index, word in enumerate(words):
            await asyncio.sleep(self.pause_s)
            if index == 2 and self.error is not None:
                raise self.error
            for choice in range(request.n):
                yield Delta(choice=choice, text=word, logprobs=_logprobs(word, request.logprobs))
        finish = "stop" if len(words) == len(self.words) else "length"
        for choice in range(request.n):
            yield Delta(choice=choice, finish=finish)
        n_tokens = request.n * len(words)
        yield Delta(usage=Usage(prompt_tokens=7, completion_tokens=n_tokens), report={"seen": 1})

    def stats(self) -> Mapping[str, float]:
        return {"active_sequences": self.n_open, "Not A Gauge": 1}

    async def aclose(self) -> None:
        self.closed = True


def _logprobs(word: str, n: int | None) -> tuple[TokenLogprob, ...]:
    if n is None:
        return ()
    top = (Alternative("x", -0.5, b"x"), Alternative("y", -1.5, b"y"))[:n]
    return (TokenLogprob(word, -0.25, word.encode(), top),)


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: Its address.
        engine: What speaks there.
        pipeline: What stands between.
        listener: The server itself.
    """

    url: str
    engine: Any
    pipeline: Pipeline
    listener: Listener

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers (names in lower case) and body.

        Bytes are sent as they are, everything else as JSON; ``_`` in a header's name is ``-``.
        """
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        with closing(connection):
            connection.request(method, path, data, named)
            response = connection.getresponse()
            seen = {name.lower(): value for name, value in response.getheaders()}
            return response.status, seen, response.read()

    def open(self, body: Any, path: str = "/v1/chat/completions") -> socket.socket:
        """Send a request and return its connection, nothing read yet."""
        host, port = self.url.removeprefix("http://").split(":")
        data = orjson.dumps(body)
        connection = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection

    def settles(self, value: float, name: str, **labels: str) -> None:
        """Wait until a sample of ``/metrics`` has *value*; fail if it does not within seconds."""
        end = time.monotonic() + 10
        while (seen := self.metric(name, **labels)) != value:
            assert time.monotonic() < end, f"{name} stays at {seen}"
            time.sleep(0.02)

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample of ``/metrics``; 0 if it is not there."""
        _, _, page = self.ask("GET", "/metrics")
        wanted = sorted(labels.items())
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                if sample.name == name and sorted(sample.labels.items()) == wanted:
                    return sample.value
        return 0.0


Served: TypeAlias = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Return a way to run a server: ``with served(api_key="k") as server``."""

    @contextmanager
    def run(engine: Any = None, *, sentences: Any = None, **settings: Any) -> Iterator[Server]:
        home = {"home": settings.get("home") or tmp_path_factory.mktemp("home")}
        chosen = Settings(**{"host": "127.0.0.1", "port": 0} | settings | home)
        engine = engine or Speaker()
        register = open_register(chosen)
        source = MemorySource(lambda: open_memory(chosen, register))
        pipeline = Pipeline(
            engines={engine.name: engine},
            register=register,
            encoder=sentences or BagEncoder(),
            agentic=Agentic(source, atlas_config(chosen)),
        )
        up = threading.Event()
        listener = Listener(pipeline, chosen, announce=lambda _url: up.set())
        thread = threading.Thread(target=listener.run)
        thread.start()
        assert up.wait(20)
        try:
            yield Server(listener.url, engine, pipeline, listener)
        finally:
            listener.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

    return run


@pytest.fixture(scope="session")
def _shared(served: Served) -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def server(_shared: Server) -> Server:
    """Return an open server; its engine speaks as it does by default."""
    fresh = Speaker()
    for name in ("words", "pause_s", "room", "error"):
        setattr(_shared.engine, name, getattr(fresh, name))
    _shared.engine.plans.clear()
    return _shared
