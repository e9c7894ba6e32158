"""The profile passthrough: an upstream's bytes, as long as there is nothing to keep back."""

from __future__ import annotations

import gc
import http.client
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from elision.middleware.engines.remote import RemoteEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.waiting import waited_s

CHAT: dict[str, Any] = {
    "model": "far@passthrough",
    "messages": [{"role": "user", "content": "Where is it?"}],
    "zebra": {"deep": [1.5, None, "\u2028"]},
}
PATH = "/v1/chat/completions"
WORDS = ["It is", " in the ", "\U0001f600", "house of", " Ysolde Marchetti", "."]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(WORDS, dialect="llama.cpp") as running:
        yield running


@pytest.fixture(scope="module")
def _through(served: Any, upstream: ScriptedUpstream) -> Iterator[Any]:
    engine = RemoteEngine(upstream.url, model="scripted", name="far", key="their-key", timeout_s=5)
    with served(engine) as server:
        # The first request asks the upstream what it offers, which no test here is about.
        assert server.ask("POST", PATH, CHAT | {"model": "far@plain"})[0] == 200
        yield server


@pytest.fixture
def through(_through: Any, upstream: ScriptedUpstream) -> Any:
    upstream.delay_s, upstream.cut, upstream.framing, upstream.fault = 0.0, 0, "lf", None
    return _through


def direct(upstream: ScriptedUpstream, body: dict[str, Any], path: str = PATH) -> bytes:
    """Return what the upstream says if nobody stands between."""
    host = upstream.url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("POST", path, orjson.dumps(body | {"model": "scripted"}))
    data = connection.getresponse().read()
    connection.close()
    return data


@pytest.mark.parametrize("framing", ["lf", "crlf", "cr", "multi", "comments"])
@pytest.mark.parametrize("cut", [0, 5])
def test_a_stream_is_the_upstreams_to_the_byte(
    through: Any, upstream: ScriptedUpstream, framing: str, cut: int
) -> None:
    upstream.framing, upstream.cut = framing, cut
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    status, headers, page = through.ask("POST", PATH, body)

    assert status == 200
    assert page == direct(upstream, body)
    assert headers["content-type"] == "text/event-stream"
    assert headers["x-elision-relayed"] == "true"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-forget-epoch"].isdecimal()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, CHAT),
        (PATH, CHAT | {"n": 3, "logprobs": True, "top_logprobs": 2}),
        ("/v1/completions", {"model": "far@passthrough", "prompt": "It is", "max_tokens": 2}),
    ],
)
def test_a_whole_reply_is_the_upstreams_to_the_byte(
    through: Any, upstream: ScriptedUpstream, path: str, body: dict[str, Any]
) -> None:
    status, headers, page = through.ask("POST", path, body)

    assert status == 200
    assert page == direct(upstream, body, path)
    assert orjson.loads(page)["model"] == "scripted"
    assert headers["content-length"] == str(len(page))
    assert float(headers["x-elision-overhead-ms"]) >= 0


def test_of_the_body_only_the_model_changes(through: Any, upstream: ScriptedUpstream) -> None:
    sent = CHAT | {"stream": False, "seed": 2**63, "stop": None, "tools": [], "n": 1}
    through.ask("POST", PATH, sent | {"elision": {"timeout_s": 9}}, authorization="Bearer mine")
    seen = upstream.seen[-1]

    assert seen.body == orjson.dumps(sent | {"model": "scripted"})
    assert seen.headers["authorization"] == "Bearer their-key"


def test_what_the_upstream_counts_is_counted(through: Any) -> None:
    names = {"route": PATH, "status": "2xx"}
    tokens = through.metric("elision_tokens_total", kind="completion")
    requests = through.metric("elision_requests_total", **names)
    first = through.metric("elision_time_to_first_token_seconds_count")
    through.ask("POST", PATH, CHAT)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    through.ask("POST", PATH, CHAT | streamed)

    through.settles(requests + 2, "elision_requests_total", **names)
    through.settles(first + 1, "elision_time_to_first_token_seconds_count")
    assert through.metric("elision_tokens_total", kind="completion") - tokens >= 2 * len(WORDS)


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "elision.audit"]


def test_the_audit_log_has_it(through: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "elision.audit"):
        through.ask("POST", PATH, CHAT)
        through.ask("POST", PATH, CHAT | {"stream": True})
        until = time.monotonic() + 5
        while len(lines := audited(caplog)) < 2 and time.monotonic() < until:
            time.sleep(0.01)  # a line is written once the reply has gone

    assert len(lines) == 2
    for line in lines:
        assert "tenant=default profile=passthrough engine=far" in line
        assert "targets=0 outcome=finished" in line


# --- When it is not handed on --------------------------------------------------------------------


def is_relayed(server: Any, body: dict[str, Any]) -> bool:
    status, headers, _ = server.ask("POST", PATH, body)
    assert status == 200
    return "x-elision-relayed" in headers


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "far@plain"},
        {"model": "far"},
        {"elision": {"report": True}},
        {"elision": {"session": "s"}},
    ],
)
def test_what_needs_more_than_bytes_goes_the_guarded_way(
    through: Any, changes: dict[str, Any]
) -> None:
    assert is_relayed(through, CHAT)
    assert not is_relayed(through, CHAT | changes)


@pytest.mark.parametrize("action", ["restrict", "observe"])
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_handed_on_while_anything_is_registered(
    through: Any, action: str, stream: bool
) -> None:
    target = {"title": "t", "phrases": ["Ysolde Marchetti"], "action": action}
    _, _, made = through.ask("POST", "/v1/forget", target)
    try:
        _, headers, page = through.ask("POST", PATH, CHAT | {"stream": stream})
    finally:
        through.ask("DELETE", f"/v1/forget/{orjson.loads(made)['id']}")

    assert "x-elision-relayed" not in headers
    assert (b"Marchetti" in page) is (action == "observe")
    assert is_relayed(through, CHAT)


def test_another_tenants_targets_change_nothing(served: Any, upstream: ScriptedUpstream) -> None:
    engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
    keys = [
        {"name": tenant, "key": f"key-{tenant}", "tenant": tenant, "roles": ["service", "operator"]}
        for tenant in ("ours", "theirs")
    ]
    with served(engine, keys=keys) as server:
        theirs = {"authorization": "Bearer key-theirs"}
        target = {"title": "t", "phrases": ["Ysolde Marchetti"]}
        assert server.ask("POST", "/v1/forget", target, **theirs)[0] == 201
        _, ours, page = server.ask("POST", PATH, CHAT, authorization="Bearer key-ours")
        _, headers, held = server.ask("POST", PATH, CHAT, **theirs)

    assert "x-elision-relayed" in ours
    assert b"Marchetti" in page
    assert "x-elision-relayed" not in headers
    assert b"Marchetti" not in held


# --- Leaving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["passthrough", "plain"])
@pytest.mark.parametrize("body", [{"stream": True}, {"stream": False}, {"fault": "silent"}])
def test_a_client_that_leaves_ends_the_upstreams_work_within_a_quarter_second(
    through: Any, upstream: ScriptedUpstream, profile: str, body: dict[str, Any]
) -> None:
    upstream.delay_s, upstream.fault = 0.05 if body.get("stream") else 3.0, body.get("fault")
    model = {"model": f"far@{profile}", "stream": bool(body.get("stream"))}
    connection: socket.socket = through.open(CHAT | model)
    waited_s(lambda: upstream.n_open == 1)
    if body.get("stream"):
        assert connection.recv(100)
    connection.close()

    assert waited_s(lambda: upstream.n_open == 0) < 0.25
    through.settles(0, "elision_requests_in_flight", route=PATH)


def test_a_connection_serves_again_after_a_relayed_reply(
    through: Any, upstream: ScriptedUpstream
) -> None:
    for stream in (True, False, True):
        through.ask("POST", PATH, CHAT | {"stream": stream})
        assert upstream.n_lines == 1


@pytest.mark.parametrize("profile", ["passthrough", "plain"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_leaves_no_cycle_behind(through: Any, profile: str, stream: bool) -> None:
    """Else its buffers would stay until the next full look for garbage, which is rare."""
    body = CHAT | {"model": f"far@{profile}", "stream": stream}
    through.ask("POST", PATH, body)
    time.sleep(0.2)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            through.ask("POST", PATH, body)
        time.sleep(0.2)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = Counter(type(thing).__name__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {"Relayed", "ClientResponse", "RequestResponseCycle", "_Presence", "Delta", "Request"}
    assert not ours & {name for name, n in kept.items() if n >= 5}, kept
