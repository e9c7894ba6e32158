"""What the server turns away, and how little it tells."""

from __future__ import annotations

import http.client
import logging
import socket
import time
from contextlib import closing
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CANARY = "zanzibar-7731"
USER = {"role": "user", "content": CANARY}
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/forget")
NO_JSON = [
    b"",
    b"{",
    b"[1, 2",
    b'{"model": "zanzibar-7731", "messages": nope}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": 1e999}',
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    b"[" * 5000,
    b"model=zanzibar-7731",
]
NO_OBJECT = [b"[]", b"null", b'"zanzibar-7731"', b"3", b"true"]
BAD = [
    ({"messages": [USER], "model": "speaker", "n": 0}, "n"),
    ({"messages": [USER], "model": "speaker", "temperature": CANARY}, "temperature"),
    ({"messages": [USER], "model": "speaker", "logit_bias": {CANARY: 1}}, "logit_bias"),
    ({"messages": [USER], "model": "speaker", "tools": [{"type": CANARY}]}, "tools[0].type"),
    ({"messages": [{"role": CANARY, "content": "a"}], "model": "speaker"}, "messages[0].role"),
    ({"messages": [], "model": "speaker"}, "messages"),
    ({"messages": [USER]}, "model"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "n",
        "temperature",
        "stop",
        "stream",
        "stream_options",
        "logprobs",
        "logit_bias",
        "seed",
        "elision",
        "title",
        "phrases",
        "names",
        "kind",
        "action",
        "tenant",
    ]
)
BASES = st.sampled_from(
    [
        {},
        {"model": "speaker", "messages": [{"role": "user", "content": "Hello"}]},
        {"model": "speaker", "prompt": "Once"},
        {"title": "t", "phrases": ["Rosebud Lane"]},
    ]
)


def error(page: bytes) -> dict[str, Any]:
    """Return the envelope's content; anything beside it is an error."""
    body = orjson.loads(page)
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


def lines(caplog: pytest.LogCaptureFixture, n: int) -> list[logging.LogRecord]:
    """Return the gateway's log lines once there are *n*: a line follows its response."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [record for record in caplog.records if record.name == "elision.gateway"]
        if len(found) >= n:
            return found
        time.sleep(0.01)
    raise AssertionError(f"fewer than {n} lines")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", NO_JSON)
def test_what_is_not_json_is_refused_without_repeating_it(
    server: Any, route: str, body: bytes
) -> None:
    status, _, page = server.ask("POST", route, body, content_type="application/json")

    assert status == 400
    assert error(page)["code"] == "invalid_json"
    assert CANARY.encode() not in page


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", NO_OBJECT)
def test_json_that_is_no_object_is_refused(server: Any, route: str, body: bytes) -> None:
    status, _, page = server.ask("POST", route, body)

    assert status == 400
    assert error(page)["type"] == "invalid_request_error"
    assert CANARY.encode() not in page


@pytest.mark.parametrize(("body", "param"), BAD)
def test_a_bad_field_is_named_and_nothing_of_the_request_comes_back(
    server: Any, body: dict[str, Any], param: str
) -> None:
    status, _, page = server.ask("POST", "/v1/chat/completions", body)

    assert (status, error(page)["param"]) == (400, param)
    assert CANARY.encode() not in page


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.sampled_from(ROUTES), BASES, st.dictionaries(NAMES, JSON, max_size=4))
def test_no_body_breaks_the_server(
    server: Any, route: str, base: dict[str, Any], fields: dict[str, Any]
) -> None:
    status, headers, page = server.ask("POST", route, base | fields)

    assert status in {200, 201, 400, 403, 404}
    if status >= 400:
        error(page)
    assert b'"internal_error"' not in page
    assert headers["x-request-id"]


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_break_the_server(server: Any, data: bytes) -> None:
    status, _, page = server.ask("POST", "/v1/chat/completions", data)

    assert status == 400
    error(page)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/zanzibar-7731", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/v1/forget", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "unknown_url"),
        ("GET", "/v1/forget/zanzibar-7731", 404, "target_not_found"),
        ("DELETE", "/v1/forget/zanzibar-7731", 404, "target_not_found"),
        ("GET", "/v1/forget?include_revoked=zanzibar-7731", 400, "bool_parsing"),
    ],
)
def test_every_wrong_turn_ends_in_the_envelope(
    server: Any, method: str, path: str, status: int, code: str
) -> None:
    seen, _, page = server.ask(method, path)

    assert (seen, error(page)["code"]) == (status, code)
    assert CANARY.encode() not in page


def test_a_method_that_is_not_allowed_names_those_that_are(server: Any) -> None:
    _, headers, _ = server.ask("GET", "/v1/chat/completions")

    assert headers["allow"] == "POST"


# --- Too much -------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_unread(served: Any) -> None:
    body = {"model": "speaker", "messages": [{"role": "user", "content": "x" * 3000}]}
    with served(body_limit_bytes=2000) as server:
        status, headers, page = server.ask("POST", "/v1/chat/completions", body)
        assert (status, error(page)["code"]) == (413, "request_too_large")
        assert headers["connection"] == "close"
        assert server.engine.plans == []
        body["messages"][0]["content"] = "x" * 1000  # type: ignore[index]
        assert server.ask("POST", "/v1/chat/completions", body)[0] == 200


def test_a_body_without_a_declared_length_is_counted_as_it_comes(served: Any) -> None:
    with served(body_limit_bytes=2000) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        body = (b"x" * 50_000 for _ in range(100))
        with closing(connection):
            connection.request("POST", "/v1/chat/completions", body, encode_chunked=True)
            assert connection.getresponse().status == 413


def test_a_client_that_asks_before_sending_is_refused_at_once(served: Any) -> None:
    with served(body_limit_bytes=2000) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
                b"content-length: 9999\r\nexpect: 100-continue\r\n\r\n"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


# --- Whose ----------------------------------------------------------------------------------------


def test_every_route_asks_for_the_key_but_probes_from_this_machine(served: Any) -> None:
    with served(api_key="k\u00e9y") as server:
        good = "Bearer k\u00e9y".encode().decode("latin-1")
        for path in ("/v1/models", "/v1/forget", "/nowhere", "/openapi.json"):
            status, headers, page = server.ask("GET", path)
            assert (status, error(page)["code"]) == (401, "invalid_api_key")
            assert headers["www-authenticate"] == "Bearer"
            assert server.ask("GET", path, authorization="Basic a2V5")[0] == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert server.ask("GET", path)[0] == 200
            # As a reverse proxy on this machine would tell of a caller from elsewhere.
            assert server.ask("GET", path, x_forwarded_for="203.0.113.9")[0] == 401
        assert server.ask("GET", "/v1/models", authorization=good)[0] == 200
        assert server.ask("GET", "/v1/models", api_key=good.removeprefix("Bearer "))[0] == 200


def test_another_tenants_name_in_a_body_is_forbidden(served: Any) -> None:
    body = {"model": "speaker", "messages": [USER], "elision": {"tenant": "b"}}
    target = {"title": "t", "phrases": ["Rosebud Lane"], "tenant": "b"}
    with served(tenant="a") as server:
        for path, sent in (("/v1/chat/completions", body), ("/v1/forget", target)):
            status, _, page = server.ask("POST", path, sent)
            assert (status, error(page)["type"]) == (403, "permission_error")
        body["elision"] = {"tenant": "a"}
        assert server.ask("POST", "/v1/chat/completions", body)[0] == 200
        assert server.engine.plans[-1].tenant == "a"


def test_web_pages_of_other_origins_may_not_use_an_open_server(server: Any) -> None:
    body = {"model": "speaker", "messages": [USER]}
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        status, _, page = server.ask("POST", "/v1/chat/completions", body, origin=origin)
        assert (status, error(page)["code"]) == (403, "foreign_origin")
    for origin in ("http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]"):
        assert server.ask("POST", "/v1/chat/completions", body, origin=origin)[0] == 200


# --- What is told ---------------------------------------------------------------------------------


def test_an_unforeseen_error_tells_nothing_and_is_logged_by_its_type(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.engine.error = ZeroDivisionError(CANARY)
    with caplog.at_level(logging.DEBUG):
        status, headers, page = server.ask(
            "POST", "/v1/chat/completions", {"model": "speaker", "messages": [USER]}
        )
        (line,) = lines(caplog, 1)

    assert (status, error(page)["code"]) == (500, "internal_error")
    assert CANARY.encode() not in page
    assert CANARY not in caplog.text
    assert line.levelno == logging.ERROR
    assert "ZeroDivisionError" in line.getMessage()
    assert headers["x-request-id"] in line.getMessage()


def test_nothing_of_a_request_reaches_a_log_or_a_label(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chat = {"model": "speaker", "messages": [USER], "stop": [CANARY], "user": CANARY}
    target = {"title": CANARY, "names": [CANARY], "phrases": [CANARY + " lane"]}
    with caplog.at_level(logging.DEBUG):
        for stream in (False, True):
            server.ask("POST", "/v1/chat/completions", chat | {"stream": stream})
        server.ask("POST", "/v1/chat/completions", chat | {"n": CANARY})
        server.ask("POST", "/v1/completions", {"model": CANARY, "prompt": CANARY})
        server.ask("POST", "/v1/chat/completions", CANARY.encode())
        server.ask("GET", f"/{CANARY}?q={CANARY}", x_request_id=f"{CANARY} {CANARY}")
        _, _, made = server.ask("POST", "/v1/forget", target)
        server.ask("DELETE", f"/v1/forget/{orjson.loads(made)['id']}")
        assert len(lines(caplog, 8)) == 8
    _, _, metrics = server.ask("GET", "/metrics")

    assert CANARY not in caplog.text
    assert CANARY.encode() not in metrics
    assert b'route="other"' in metrics
