"""Limits where nobody says what a reply has cost: the key pays for what left, never nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from elision.middleware.engines.remote import RemoteEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_wire import Writer

BUDGET = 100_000
WORDS = 400
CHAT = {"messages": [{"role": "user", "content": "x" * 400}]}
TEXT = {"prompt": "x" * 400, "max_tokens": WORDS}
TURN = {"input": "x" * 400}
STREAM = {"stream": True}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}
NOTHING = ({}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None)


@pytest.fixture(scope="module")
def far(served: Any) -> Iterator[Any]:
    with ScriptedUpstream(["word "] * WORDS) as upstream:
        engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
        with served(engine, limits={"token_budget": BUDGET}) as server:
            yield server


def spent(server: Any) -> int:
    """Return what the key has used of its budget, once nothing is held of it."""
    account = server.listener.config.app.state.allowances["open"].account
    end = time.monotonic() + 5
    while account._held:
        assert time.monotonic() < end
        time.sleep(0.005)
    return int(BUDGET - account.left)


@pytest.mark.parametrize("told", NOTHING)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | STREAM),
        ("/v1/chat/completions", CHAT | {"model": "far@passthrough"}),
        ("/v1/chat/completions", CHAT | {"model": "far@passthrough"} | COUNTED),
        ("/v1/completions", TEXT),
        ("/v1/completions", TEXT | {"prompt": ["x" * 200, "x" * 200]} | STREAM),
        ("/v1/responses", TURN),
        ("/v1/responses", TURN | STREAM),
    ],
)
def test_a_reply_that_its_upstream_does_not_count_costs_what_left(
    far: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], told: Any
) -> None:
    monkeypatch.setattr(Writer, "usage", lambda _self: told)
    before = spent(far)
    status, _, _ = far.ask("POST", path, {"model": "far", **body})
    assert status == 200
    assert WORDS <= spent(far) - before <= 20 * WORDS


def test_a_guard_does_not_make_it_free(far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "usage", lambda _self: None)
    target = {"title": "t", "phrases": ["Marlowe Street"]}
    assert far.ask("POST", "/v1/forget", target)[0] in (200, 201)
    before = spent(far)
    assert far.ask("POST", "/v1/chat/completions", {"model": "far", **CHAT, "n": 2})[0] == 200
    assert spent(far) - before >= 2 * WORDS


def test_a_long_event_of_a_relayed_stream_is_not_one_token(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "usage", lambda _self: None)
    with ScriptedUpstream(["word " * 2000]) as upstream:
        engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
        with served(engine, limits={"token_budget": BUDGET}) as server:
            body = {"model": "far@passthrough", **CHAT, **COUNTED}
            status, headers, _ = server.ask("POST", "/v1/chat/completions", body)
            assert (status, headers["x-elision-relayed"]) == (200, "true")
            assert 2000 <= spent(server) <= 4000


def test_who_leaves_before_a_held_reply_pays_for_his_prompt(served: Any) -> None:
    with served(limits={"token_budget": BUDGET}) as server:
        server.engine.pause_s = 0.2
        with server.open({"model": "speaker", **CHAT}) as line:
            while not server.engine.n_open:
                time.sleep(0.005)
            line.shutdown(socket.SHUT_RDWR)
        assert spent(server) == 104
        server.settles(
            1, "elision_requests_total", route="/v1/chat/completions", status="client gone"
        )


@pytest.mark.parametrize(("fault", "n_used"), [("500", 0), ("reset", 104)])
def test_a_server_that_breaks_off_costs_the_prompt_and_one_that_refuses_nothing(
    served: Any, fault: str, n_used: int
) -> None:
    with ScriptedUpstream(["word "] * 9, fault=fault, fault_after=0) as upstream:
        engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
        with served(engine, limits={"token_budget": BUDGET}) as server:
            for body in (CHAT, CHAT | STREAM, CHAT | {"model": "far@passthrough"} | COUNTED):
                before = spent(server)
                assert (
                    server.ask("POST", "/v1/chat/completions", {"model": "far", **body})[0] >= 500
                )
                assert spent(server) - before == n_used
