"""The short ways of what streams: around the router, to the metrics, to a stream's end."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from elision.middleware.gateway.direct import Direct
from elision.middleware.gateway.metrics import Timings
from elision.middleware.gateway.streaming import EventStream

BOUNDS = (0.001, 0.005, 0.01, 1, 2.5, 30)


async def _short(_request: Request) -> Response:
    return PlainTextResponse("short")


async def _long(request: Request) -> Response:
    return PlainTextResponse(f"long {request.method}")


def _answers(*, root: str = "") -> TestClient:
    app = Starlette()
    app.add_route("/said", _long, methods=["GET", "POST", "PUT"])
    app.add_route("/other", _long, methods=["POST"])
    inner = Direct(app, routes={"/said": _short})
    if not root:
        return TestClient(inner)
    outer = Starlette()
    outer.mount(root, inner)
    return TestClient(outer)


@pytest.mark.parametrize("root", ["", "/below"])
def test_a_post_to_a_direct_route_is_answered_before_the_router(root: str) -> None:
    client = _answers(root=root)

    assert client.post(f"{root}/said").text == "short"


@pytest.mark.parametrize(
    ("method", "path", "want"), [("GET", "/said", "long GET"), ("POST", "/other", "long POST")]
)
def test_what_is_not_direct_takes_the_router(method: str, path: str, want: str) -> None:
    assert _answers().request(method, path).text == want


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 60)), max_size=30))
def test_timings_are_exposed_as_the_library_exposes_them(seconds: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    timings = Timings("waited_seconds", "How long.", buckets=BOUNDS)
    ours.register(timings)
    oracle = Histogram("waited_seconds", "How long.", buckets=BOUNDS, registry=theirs)
    for one in seconds:
        timings.observe(one)
        oracle.observe(one)

    assert _lines(ours) == _lines(theirs)


def _lines(registry: CollectorRegistry) -> list[str]:
    page = generate_latest(registry).decode().splitlines()
    return [line for line in page if "_created" not in line]


class _Counted(EventStream):
    """Knows which of its pieces is the last."""

    n_left = 3

    def leaves(self) -> bool:
        self.n_left -= 1
        return self.n_left == 0


async def test_the_last_piece_takes_the_end_with_it_and_the_source_is_closed_behind_it() -> None:
    sent: list[Any] = []
    whole = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for n in range(3):
                yield b"%d" % n
        finally:
            sent.append("closed")

    async def receive() -> dict[str, Any]:
        await whole.wait()
        return {"type": "http.disconnect"}  # as servers say once a response is whole

    async def send(message: Any) -> None:
        sent.append(message)
        if not message.get("more_body", True):
            whole.set()

    await _Counted(pieces())({"type": "http", "state": {}}, receive, send)

    bodies = [one for one in sent if one != "closed"][1:]
    assert [one["body"] for one in bodies] == [b"0", b"1", b"2"]
    assert [one["more_body"] for one in bodies] == [True, True, False]
    assert sent[-1] == "closed"


def test_a_server_asks_for_the_descriptors_that_it_may_have() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    script = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        "from elision.middleware.gateway.serve import settle\n"
        "settle()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert int(done.stdout) == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
