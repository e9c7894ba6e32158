"""However an upstream fails, the caller gets OpenAI's envelope or an error in the stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from elision.middleware.engines.remote import RemoteEngine
from elision.testing.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
PROMPT = "Who sailed the boat?"
SAID = ["It was ", "sailed by ", "Ysolde Mar", "chetti", " alone."]
PROFILES = ("passthrough", "plain", "guarded")

BEFORE = {
    "hangs-up": (502, "upstream_failed"),
    "silent": (504, "upstream_timeout"),
    "429": (429, "rate_limit_exceeded"),
    "500": (502, "upstream_failed"),
    "503": (429, "rate_limit_exceeded"),
    "401": (502, "upstream_failed"),
}
"""Faults in place of an answer; what the caller is told."""

WITHIN = {
    "reset": "upstream_failed",
    "breaks": "upstream_failed",
    "slow": "upstream_timeout",
    "malformed": "upstream_failed",
    "half-utf8": "upstream_failed",
    "error-event": "upstream_failed",
    "ends-early": "upstream_failed",
    "stray": "upstream_failed",
    "endless": "upstream_timeout",
    "endless-line": "upstream_failed",
}
"""Faults in the middle of a stream; the code of the error event that ends it."""

LATE = frozenset({"silent", "slow", "endless"})
"""Faults that end at a limit of time."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(SAID, dialect="llama.cpp") as running:
        yield running


@pytest.fixture(scope="module")
def _patient(served: Any, upstream: ScriptedUpstream) -> Iterator[Any]:
    with _server(served, upstream, "patient", 20.0) as server:
        yield server


@pytest.fixture(scope="module")
def _hasty(served: Any, upstream: ScriptedUpstream) -> Iterator[Any]:
    with _server(served, upstream, "hasty", 0.6) as server:
        yield server


def _server(served: Any, upstream: ScriptedUpstream, name: str, timeout_s: float) -> Any:
    return served(
        RemoteEngine(
            upstream.url, model="scripted", name=name, timeout_s=timeout_s, retries=0, probe=False
        )
    )


@pytest.fixture
def server(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Any:
    """A server before the upstream, hasty where the fault is to be told as a timeout."""
    upstream.fault, upstream.fault_after, upstream.n_faults = None, 3, None
    upstream.delay_s = 0.0
    fault = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault")
    return request.getfixturevalue("_hasty" if fault in LATE else "_patient")


@pytest.fixture
def registered(server: Any) -> Iterator[None]:
    target = {"title": "t", "phrases": ["Ysolde Marchetti"]}
    _, _, made = server.ask("POST", "/v1/forget", target)
    yield
    server.ask("DELETE", f"/v1/forget/{orjson.loads(made)['id']}")


def ask(server: Any, profile: str, *, stream: bool) -> tuple[int, dict[str, str], bytes]:
    body = {
        "model": f"{server.engine.name}@{profile}",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": stream,
        "elision": {"timeout_s": 1 if server.engine.name == "hasty" else 20},
    }
    status, headers, page = server.ask("POST", PATH, body)
    return status, headers, page


def events(page: bytes) -> list[Any]:
    """Return what a stream's events carry; it must be one, to its last byte."""
    *blocks, rest = page.split(b"\n\n")
    assert rest == b""
    return [orjson.loads(block.removeprefix(b"data: ")) for block in blocks]


def said(chunks: list[Any]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)


def check_error(error: Any, code: str) -> None:
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert not any(word in error["message"] for word in (PROMPT, "sailed", "Ysolde", "scripted"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_before_the_answer_is_a_status_and_the_envelope(
    server: Any, upstream: ScriptedUpstream, profile: str, fault: str, stream: bool
) -> None:
    upstream.fault = fault
    status, headers, page = ask(server, profile, stream=stream)

    assert (status, headers["content-type"]) == (BEFORE[fault][0], "application/json")
    check_error(orjson.loads(page)["error"], BEFORE[fault][1])
    assert headers["x-should-retry"] in ("true", "false")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fault", WITHIN)
def test_a_fault_in_the_stream_ends_it_with_an_error_event(
    server: Any, upstream: ScriptedUpstream, profile: str, fault: str
) -> None:
    upstream.fault, upstream.delay_s = fault, 0.02 if fault == "endless" else 0.0
    status, headers, page = ask(server, profile, stream=True)
    *chunks, last = events(page)

    assert (status, headers["content-type"][:17]) == (200, "text/event-stream")
    check_error(last["error"], WITHIN[fault])
    assert "".join(SAID).startswith(said(chunks)[:20])
    if profile != "guarded":
        assert said(chunks)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fault", sorted({*WITHIN} - {"endless"} | {"hangs-up"}))
def test_what_was_held_does_not_leave_with_an_error(
    server: Any, registered: None, upstream: ScriptedUpstream, profile: str, fault: str
) -> None:
    upstream.fault = fault
    ways = (True,) if fault == "slow" else (True, False)
    page = b"".join(ask(server, profile, stream=stream)[2] for stream in ways)

    assert b'"error"' in page
    assert b"Ysolde" not in page
    assert b"Mar" not in page


def test_an_upstream_that_is_not_there_is_a_bad_gateway(served: Any) -> None:
    with ScriptedUpstream(SAID, fault="refused") as gone:
        engine = RemoteEngine(gone.url, model="scripted", name="far", retries=0, probe=False)
        with served(engine) as server:
            for profile in PROFILES:
                for stream in (True, False):
                    status, _, page = ask(server, profile, stream=stream)
                    assert status == 502
                    check_error(orjson.loads(page)["error"], "upstream_failed")


def test_json_in_place_of_a_stream_is_not_handed_on_as_one(
    server: Any, upstream: ScriptedUpstream
) -> None:
    upstream.fault = "json-instead-of-stream"
    status, _, page = ask(server, "passthrough", stream=True)

    assert status == 502
    check_error(orjson.loads(page)["error"], "upstream_failed")


@pytest.mark.parametrize("profile", PROFILES)
def test_after_every_fault_the_next_request_goes_well(
    server: Any, upstream: ScriptedUpstream, profile: str
) -> None:
    for fault in sorted({*BEFORE, *WITHIN} - {"silent", "slow", "endless"}):
        upstream.fault, upstream.n_faults = fault, 1
        ask(server, profile, stream=True)
    upstream.fault = None
    status, _, page = ask(server, profile, stream=False)

    assert status == 200
    assert orjson.loads(page)["choices"][0]["message"]["content"] == "".join(SAID)
    server.settles(0, "elision_requests_in_flight", route=PATH)
    assert upstream.n_open == 0
