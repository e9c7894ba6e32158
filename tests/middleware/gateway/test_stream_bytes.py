"""What stands on the wire, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
from starlette.requests import ClientDisconnect

from elision.errors import GuardError
from elision.middleware.gateway.streaming import EventStream, until_gone
from elision.testing.waiting import awaited_s

CHAT: dict[str, Any] = {"model": "speaker", "messages": [{"role": "user", "content": "Hello"}]}


def events(page: bytes) -> list[Any]:
    """Split a stream into what its events carry; anything else in it is an error."""
    *blocks, rest = page.split(b"\n\n")
    assert rest == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    bodies = [block.removeprefix(b"data: ") for block in blocks]
    return [None if body == b"[DONE]" else orjson.loads(body) for body in bodies]


def test_a_stream_is_server_sent_events_that_end_with_done(server: Any) -> None:
    status, headers, page = server.ask("POST", "/v1/chat/completions", CHAT | {"stream": True})

    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    seen = events(page)
    assert seen[-1] is None
    assert [chunk["object"] for chunk in seen[:-1]] == ["chat.completion.chunk"] * 7
    deltas = [chunk["choices"][0]["delta"] for chunk in seen[:-1]]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert [d["content"] for d in deltas[1:-1]] == ["Paris", " is", " the", " capital", "."]
    assert deltas[-1] == {}


def test_line_ends_and_odd_characters_stay_inside_their_event(server: Any) -> None:
    server.engine.words = ("a\n\ndata: x\r\n", "\u2028\x00\U0001f600", "[DONE]")
    _, _, page = server.ask("POST", "/v1/chat/completions", CHAT | {"stream": True})
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in events(page)[:-1]]

    assert "".join(texts) == "".join(server.engine.words)


@pytest.mark.parametrize("extra", [{}, {"n": 3}, {"logprobs": True}, {"max_tokens": 2}])
def test_a_stream_says_what_the_whole_reply_says(server: Any, extra: dict[str, Any]) -> None:
    body = CHAT | extra
    _, _, whole = server.ask("POST", "/v1/chat/completions", body)
    _, _, page = server.ask("POST", "/v1/chat/completions", body | {"stream": True})
    chunks = [chunk["choices"][0] for chunk in events(page)[:-1]]

    for choice in orjson.loads(whole)["choices"]:
        mine = [c for c in chunks if c["index"] == choice["index"]]
        said = "".join(c["delta"].get("content", "") for c in mine)
        tokens = [t for c in mine for t in (c["logprobs"] or {"content": []})["content"]]
        assert choice["message"]["content"] == said
        assert choice["finish_reason"] == mine[-1]["finish_reason"]
        assert (choice["logprobs"] or {"content": []})["content"] == tokens


def test_each_piece_leaves_at_once(server: Any) -> None:
    server.engine.pause_s = 0.2
    arrived = []
    with server.open(CHAT | {"stream": True}) as stream:
        while data := stream.recv(65536):
            if b"data: {" in data:
                arrived.append(time.monotonic())
            if b"[DONE]" in data:
                break

    gaps = [after - before for before, after in pairwise(arrived)]
    assert len(arrived) >= 5
    assert sum(gap > 0.1 for gap in gaps) >= 4


def test_an_error_on_the_way_is_an_event_and_no_done_follows(server: Any) -> None:
    server.engine.error = GuardError("a guard broke")
    _, _, page = server.ask("POST", "/v1/chat/completions", CHAT | {"stream": True})
    last = events(page)[-1]

    assert last == {
        "error": {
            "message": "a guard broke",
            "type": "guard_error",
            "param": None,
            "code": "guard_failed_closed",
        }
    }


def test_an_error_before_the_first_piece_is_a_status(server: Any) -> None:
    body = CHAT | {"model": "nobody", "stream": True}
    status, headers, page = server.ask("POST", "/v1/chat/completions", body)

    assert status == 404
    assert headers["content-type"] == "application/json"
    assert orjson.loads(page)["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_at_once(server: Any, stream: bool) -> None:
    server.engine.words = ("word ",) * 1000
    server.engine.pause_s = 0.05
    gone = {"route": "/v1/chat/completions", "status": "client gone"}
    before = server.metric("elision_requests_total", **gone)
    connection = server.open(CHAT | {"stream": stream})
    server.settles(1, "elision_engine_active_sequences")
    connection.close()

    left = time.monotonic()
    server.settles(0, "elision_engine_active_sequences")
    assert time.monotonic() - left < 1
    server.settles(before + 1, "elision_requests_total", **gone)
    server.settles(0, "elision_requests_in_flight", route="/v1/chat/completions")


def test_eight_streams_run_side_by_side(server: Any) -> None:
    server.engine.words = ("word ",) * 20
    server.engine.pause_s = 0.02
    began = time.monotonic()
    streams = [server.open(CHAT | {"stream": True}) for _ in range(8)]
    pages = [_drain(stream) for stream in streams]

    assert time.monotonic() - began < 8 * 20 * 0.02 / 2
    assert all(page.count(b"word ") == 20 for page in pages)


# --- The stream itself ---------------------------------------------------------------------------


async def test_a_silent_stream_is_kept_alive_and_opened() -> None:
    sent: list[Any] = []

    async def slow() -> AsyncIterator[bytes]:
        await awaited_s(lambda: len(sent) == 3)
        yield b"data: 1\n\n"

    await _serve(EventStream(slow(), heartbeat_s=0.1), sent)

    assert sent[0]["type"] == "http.response.start"
    bodies = [message["body"] for message in sent[1:]]
    assert bodies == [b": keep-alive\n\n", b": keep-alive\n\n", b"data: 1\n\n", b""]


async def test_a_busy_stream_needs_no_keeping_alive() -> None:
    async def steady() -> AsyncIterator[bytes]:
        for _ in range(70):
            await asyncio.sleep(0.02)
            yield b"data: 1\n\n"

    sent = await _serve(EventStream(steady(), heartbeat_s=1.2))

    assert b": keep-alive\n\n" not in [message.get("body") for message in sent]


async def test_an_error_after_a_heartbeat_is_an_event() -> None:
    async def broken() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.15)
        raise GuardError("a guard broke")
        yield b""

    sent = await _serve(EventStream(broken(), heartbeat_s=0.1))

    assert sent[0]["status"] == 200
    assert b"guard_failed_closed" in sent[-2]["body"]


async def test_leaving_closes_the_source_before_the_call_returns() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0.01)
                yield b"data: 1\n\n"
        finally:
            closed.set()

    with pytest.raises(ClientDisconnect):
        await _serve(EventStream(endless()), leaves_after_s=0.1)
    assert closed.is_set()


async def test_work_that_fails_raises_its_own_error_and_stops_watching() -> None:
    watching = asyncio.Event()

    async def receive() -> dict[str, Any]:
        watching.set()
        await asyncio.sleep(3600)
        raise AssertionError

    async def work() -> None:
        await watching.wait()
        raise GuardError("a guard broke")

    with pytest.raises(GuardError):
        await until_gone(receive, work())
    assert len(asyncio.all_tasks()) == 1


async def test_who_cancels_from_elsewhere_is_not_taken_for_a_client_that_left() -> None:
    task = asyncio.ensure_future(_serve(EventStream(_endless())))
    await asyncio.sleep(0.05)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


async def test_the_task_of_a_client_that_left_can_go_on() -> None:
    with pytest.raises(ClientDisconnect):
        await _serve(EventStream(_endless()), leaves_after_s=0.05)
    task = asyncio.current_task()

    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_channel_that_breaks_has_no_client_at_its_end() -> None:
    async def receive() -> dict[str, Any]:
        raise OSError("broken")

    with pytest.raises(ClientDisconnect):
        await until_gone(receive, asyncio.sleep(3600))


async def _endless() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.01)
        yield b"data: 1\n\n"


async def _serve(
    stream: EventStream, into: list[Any] | None = None, *, leaves_after_s: float = 3600
) -> list[Any]:
    sent: list[Any] = [] if into is None else into

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(leaves_after_s)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await stream({"type": "http", "state": {}}, receive, send)
    return sent


def _drain(stream: socket.socket) -> bytes:
    page = b""
    with stream:
        while b"[DONE]" not in page:
            page += stream.recv(65536)
    return page
