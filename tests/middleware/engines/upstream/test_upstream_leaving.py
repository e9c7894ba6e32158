"""Whoever leaves ends the upstream's work: a reader of the engine, a client of the server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from elision.contract import Plan, Request
from elision.middleware.assembly import open_register
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.gateway import Listener
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.upstream import ScriptedUpstream
from elision.testing.waiting import awaited_s, waited_s

ASK = ({"role": "user", "content": "Go on"},)
LONG = "on and on " * 400


@contextmanager
def serving(home: Path, engine: RemoteEngine) -> Iterator[tuple[str, int]]:
    settings = Settings(host="127.0.0.1", port=0, home=home, profile="guarded")
    pipeline = Pipeline(engines={engine.name: engine}, register=open_register(settings))
    up = threading.Event()
    listener = Listener(pipeline, settings, announce=lambda _url: up.set())
    thread = threading.Thread(target=listener.run)
    thread.start()
    assert up.wait(20)
    host, port = listener.url.removeprefix("http://").split(":")
    try:
        yield host, int(port)
    finally:
        listener.should_exit = True
        thread.join(20)


def post(at: tuple[str, int], body: Any) -> socket.socket:
    data = orjson.dumps(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(at, timeout=10)
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [None, "slow", "silent"])
def test_a_client_that_leaves_ends_the_upstreams_work_within_a_quarter_second(
    tmp_path: Path, stream: bool, fault: str | None
) -> None:
    with ScriptedUpstream(LONG, delay_s=0.01, fault=fault) as up:
        engine = RemoteEngine(up.url, model="scripted", probe=False)
        with serving(tmp_path, engine) as at:
            body = {"model": "scripted", "messages": ASK, "stream": stream}
            connection = post(at, body)
            waited_s(lambda: up.n_open == 1)
            if stream and fault is None:
                assert b"200" in connection.recv(64)
            time.sleep(0.05)
            connection.close()
            took_s = waited_s(lambda: up.n_open == 0)
    assert took_s < 0.25


@pytest.mark.parametrize("fault", [None, "slow"])
async def test_a_reader_that_leaves_ends_the_upstreams_work_within_a_quarter_second(
    fault: str | None,
) -> None:
    async with ScriptedUpstream(LONG, delay_s=0.01, fault=fault) as up:
        engine = RemoteEngine(up.url, model="scripted", probe=False)
        async with aclosing(engine.stream(Plan(request=Request(messages=ASK)))) as deltas:
            await anext(deltas)
            assert up.n_open == 1
        assert await awaited_s(lambda: not up.n_open) < 0.25
        assert up.n_steps < 10
        await engine.aclose()
