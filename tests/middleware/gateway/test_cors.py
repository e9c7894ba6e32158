"""Web pages: which may call, and what their browser is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from elision.settings import Settings

PAGE = "https://chat.example.com"
OTHER = "https://evil.example.com"
PATH = "/v1/chat/completions"
CHAT = {"model": "speaker", "messages": [{"role": "user", "content": "Where is it?"}]}
PREFLIGHT = {
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization, content-type, x-stainless-lang",
}


def cors(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control")}


@pytest.fixture(scope="module")
def crossed(served: Any) -> Iterator[Any]:
    limits = {"requests_per_minute": 600}
    with served(api_key="k", cors_origins=[PAGE, "http://localhost:3000"], limits=limits) as server:
        yield server


def test_by_default_no_page_is_told_anything(server: Any) -> None:
    status, headers, _ = server.ask("OPTIONS", PATH, origin="http://localhost:3000", **PREFLIGHT)
    assert status == 405
    assert cors(headers) == {}
    status, headers, _ = server.ask("POST", PATH, CHAT, origin="http://localhost:3000")
    assert (status, cors(headers)) == (200, {})


def test_a_preflight_needs_no_key_and_tells_nothing_of_the_server(crossed: Any) -> None:
    for path in (PATH, "/v1/forget", "/nothing"):
        status, headers, page = crossed.ask("OPTIONS", path, origin=PAGE, **PREFLIGHT)
        assert (status, page) == (200, b"OK")
        assert headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-lang" in headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in headers
        assert not {"x-request-id", "server", "x-forget-epoch"} & {*headers}
    assert crossed.engine.plans == []


def test_a_preflight_of_another_origin_is_refused(crossed: Any) -> None:
    status, headers, _ = crossed.ask("OPTIONS", PATH, origin=OTHER, **PREFLIGHT)
    assert status == 400
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_that_may_call_reads_replies_and_the_headers_that_matter(
    crossed: Any, stream: bool
) -> None:
    body = CHAT | {"stream": stream}
    status, headers, _ = crossed.ask("POST", PATH, body, origin=PAGE, authorization="Bearer k")
    assert status == 200
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["vary"] == "Origin"
    shown = headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= {*shown}
    assert {name for name in headers if name.startswith("x-ratelimit")} <= {*shown}


@pytest.mark.parametrize(
    ("key", "body", "wanted"), [("wrong", CHAT, 401), ("k", {}, 400), ("k", b"{", 400)]
)
def test_errors_can_be_read_too(crossed: Any, key: str, body: Any, wanted: int) -> None:
    status, headers, page = crossed.ask(
        "POST", PATH, body, origin=PAGE, authorization=f"Bearer {key}"
    )
    assert status == wanted
    assert orjson.loads(page)["error"]["message"]
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["x-request-id"]


def test_other_pages_get_no_leave_to_read(crossed: Any) -> None:
    for origin in (OTHER, PAGE + ".evil.example", "http://chat.example.com", "null", PAGE + ":444"):
        _, headers, _ = crossed.ask("POST", PATH, CHAT, origin=origin, authorization="Bearer k")
        assert "access-control-allow-origin" not in headers


def test_an_open_server_lets_the_named_pages_in_and_no_others(served: Any) -> None:
    with served(cors_origins=[PAGE]) as server:
        assert server.ask("POST", PATH, CHAT, origin=PAGE)[0] == 200
        status, headers, page = server.ask("POST", PATH, CHAT, origin=OTHER)
        assert (status, orjson.loads(page)["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "origin",
    [
        "*", "null", "", "https://*.example.com", "chat.example.com", "https://a.example/",
        "https://a.example/path", "https://A.example", "file:///x", "https://u@a.example",
        "https://a.example?q", "https://",
    ],
)  # fmt: skip
def test_an_origin_that_is_not_exact_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=[origin])  # type: ignore[arg-type]
