"""New tries: only while nothing has been answered, and only where asking again does no harm."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

import pytest

from elision.contract import Plan, Request, collect
from elision.errors import BusyError, ElisionError, UpstreamError
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream import answers
from elision.testing.upstream import ScriptedUpstream

KEY = "sk-canary"
ASK = ({"role": "user", "content": "Who is Voldemort?"},)


async def reply(url: str, *, timeout_s: float | None = None, **options: Any) -> str:
    engine = RemoteEngine(url, model="scripted", key=KEY, probe=False, **options)
    try:
        request = Request(messages=ASK, timeout_s=timeout_s)
        return (await collect(engine.stream(Plan(request=request)))).text
    finally:
        await engine.aclose()


async def fault(url: str, **options: Any) -> ElisionError:
    with pytest.raises(ElisionError) as caught:
        await reply(url, **options)
    return caught.value


@pytest.mark.parametrize("status", ["429", "503"])
async def test_who_is_busy_for_a_moment_is_asked_again(status: str) -> None:
    async with ScriptedUpstream("Hello", fault=status, n_faults=2) as up:
        assert await reply(up.url) == "Hello"
        assert len(up.bodies) == 3
        assert len({one.body for one in up.seen}) == 1


@pytest.mark.parametrize("status", ["429", "503"])
async def test_tries_are_counted(status: str) -> None:
    async with ScriptedUpstream("Hello", fault=status, n_faults=2) as up:
        assert isinstance(await fault(up.url, retries=1), BusyError)
        assert len(up.bodies) == 2


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "408", "500", "502", "504"])
async def test_what_may_have_been_begun_is_not_asked_again(status: str) -> None:
    async with ScriptedUpstream("Hello", fault=status) as up:
        await fault(up.url)
        assert len(up.bodies) == 1


@pytest.mark.parametrize(
    "broken", ["reset", "breaks", "ends-early", "malformed", "error-event", "hangs-up", "stray"]
)
async def test_an_answer_that_began_is_never_begun_again(broken: str) -> None:
    async with ScriptedUpstream("Voldemort!", fault=broken) as up:
        assert isinstance(await fault(up.url), UpstreamError)
        assert len(up.bodies) == 1


async def test_a_server_that_comes_up_late_is_found() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    waiting = asyncio.create_task(reply(f"http://127.0.0.1:{port}/v1", retries=5))
    await asyncio.sleep(0.05)
    up = ScriptedUpstream("Hello")
    server = await asyncio.get_running_loop().create_server(up.line, "127.0.0.1", port)
    assert await waiting == "Hello"
    server.close()


async def test_nobody_listening_ends_after_its_tries() -> None:
    async with ScriptedUpstream("Hello", fault="refused") as up:
        began = time.monotonic()
        assert (await fault(up.url, retries=1)).retryable
        assert 0.1 < time.monotonic() - began < 2


async def test_a_deadline_is_not_waited_past() -> None:
    async with ScriptedUpstream("Hello", fault="refused") as up:
        began = time.monotonic()
        await fault(up.url, retries=10, timeout_s=0.3)
        assert time.monotonic() - began < 2  # all tries take four seconds at the least


@pytest.mark.parametrize(
    ("named_s", "tries", "retries", "left_s", "least", "most"),
    [
        (None, 0, 1, None, 0.125, 0.25),
        (None, 2, 5, None, 0.5, 1.0),
        (None, 4, 9, 60.0, 2.0, 4.0),
        (None, 5, 9, None, None, None),
        (0.0, 0, 1, None, 0.0, 0.0),
        (5.0, 0, 1, None, 5.0, 7.5),
        (5.1, 0, 1, None, None, None),
        (1.0, 1, 1, None, None, None),
        (1.0, 0, 1, 0.9, None, None),
        (None, 0, 0, None, None, None),
    ],
)
async def test_waits_double_and_are_spread_within_bounds(
    named_s: float | None, tries: int, retries: int, left_s: float | None,
    least: float | None, most: float | None,
) -> None:  # fmt: skip
    asked = answers.Asked(
        method="POST", url="", headers={}, retries=retries, deadline=answers.from_now(left_s)
    )
    waits = [answers._wait_s(named_s, tries, asked) for _ in range(50)]
    if least is None or most is None:
        assert waits == [None] * 50
        return
    assert all(wait is not None and least <= wait <= most for wait in waits)
    assert least == most or len(set(waits)) > 10


@pytest.mark.parametrize(
    "broken", ["401", "429", "500", "hangs-up", "reset", "malformed", "half-utf8", "redirect"]
)
async def test_the_key_and_the_words_are_in_no_error_and_no_log(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    there = "http://elsewhere.example/v1"
    async with ScriptedUpstream("Voldemort!", fault=broken, location=there) as up:
        error: BaseException | None = await fault(up.url, retries=0)
    told = caplog.text
    while error is not None:
        told += f"{error}{error!r}{vars(error)}{error.args}"
        error = error.__cause__ or error.__context__
    assert KEY not in told
    assert "Voldemort" not in told
    asked = answers.Asked(method="POST", url="u", headers={"Authorization": KEY}, body=b"Voldemort")
    assert KEY not in repr(asked)
    assert "Voldemort" not in repr(asked)
