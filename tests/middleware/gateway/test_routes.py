"""The routes beside the two that write text, and what every response carries."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

CHAT = {"model": "speaker", "messages": [{"role": "user", "content": "Hello"}]}
TARGET = {
    "title": "The house",
    "kind": "string",
    "names": ["the house"],
    "phrases": ["Rosebud Lane", {"text": "Xanadu Road", "mode": "soft", "allow_echo": True}],
    "action": "redact",
}


def json(answer: tuple[int, dict[str, str], bytes]) -> Any:
    return orjson.loads(answer[2])


# --- Forgetting -----------------------------------------------------------------------------------


@pytest.fixture
def clean(server: Any) -> Any:
    """Return the server with nothing in its register."""
    for target in json(server.ask("GET", "/v1/forget"))["data"]:
        server.ask("DELETE", f"/v1/forget/{target['id']}")
    return server


def test_a_target_is_registered_found_listed_and_revoked(clean: Any) -> None:
    status, headers, page = clean.ask("POST", "/v1/forget", TARGET)
    made = orjson.loads(page)
    assert status == 201
    assert (made["state"], made["warnings"]) == ("active", [])
    assert headers["location"] == f"/v1/forget/{made['id']}"

    found = json(clean.ask("GET", f"/v1/forget/{made['id']}"))
    assert (found["title"], found["action"]) == ("The house", "redact")
    assert found["phrases"][1]["mode"] == "soft"
    assert json(clean.ask("GET", "/v1/forget"))["data"] == [found]

    status, _, page = clean.ask("DELETE", f"/v1/forget/{made['id']}")
    gone = orjson.loads(page)
    assert (status, gone["state"], gone["epoch"]) == (200, "revoked", made["epoch"] + 1)
    assert json(clean.ask("GET", "/v1/forget"))["data"] == []
    kept = json(clean.ask("GET", "/v1/forget?include_revoked=true"))["data"]
    assert made["id"] in [target["id"] for target in kept]


def test_a_target_holds_from_the_next_request_on(clean: Any) -> None:
    before = json(clean.ask("POST", "/v1/chat/completions", CHAT | {"elision": {"report": True}}))
    made = json(clean.ask("POST", "/v1/forget", TARGET))
    after = json(clean.ask("POST", "/v1/chat/completions", CHAT | {"elision": {"report": True}}))

    assert before["elision"]["n_targets"] == 0
    assert after["elision"]["n_targets"] == 1
    assert after["elision"]["epoch"] == made["epoch"] == before["elision"]["epoch"] + 1


def test_a_short_phrase_is_registered_with_a_warning(clean: Any) -> None:
    made = json(clean.ask("POST", "/v1/forget", {"title": "t", "phrases": ["Ann"]}))

    assert [warning["phrase"] for warning in made["warnings"]] == [0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"phrases": ["Rosebud Lane"]}, "title"),
        ({"title": "t"}, "phrases"),
        ({"title": "t", "phrases": ["..."]}, "phrases[0].text"),
        ({"title": "t", "phrases": [{"text": "Rosebud Lane", "mode": "x"}]}, "phrases[0].mode"),
        ({"title": "t", "phrases": ["Rosebud Lane"], "action": "x"}, "action"),
    ],
)
def test_a_target_that_cannot_be_enforced_is_refused(
    server: Any, body: dict[str, Any], param: str
) -> None:
    status, _, page = server.ask("POST", "/v1/forget", body)
    error = orjson.loads(page)["error"]

    assert (status, error["param"], error["code"]) == (400, param, "invalid_target")
    assert "Rosebud" not in error["message"]


# --- Health and metrics ---------------------------------------------------------------------------


def test_health_readiness_and_metrics_answer(server: Any) -> None:
    assert json(server.ask("GET", "/healthz")) == {"status": "ok"}
    assert json(server.ask("GET", "/readyz")) == {"status": "ready"}
    status, headers, _ = server.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")


def test_requests_tokens_and_times_are_counted(server: Any) -> None:
    route = "/v1/chat/completions"

    def sample() -> list[float]:
        server.settles(0, "elision_requests_in_flight", route=route)
        return [
            server.metric("elision_requests_total", route=route, status="2xx"),
            server.metric("elision_requests_total", route=route, status="4xx"),
            server.metric("elision_tokens_total", kind="prompt"),
            server.metric("elision_tokens_total", kind="completion"),
            server.metric("elision_time_to_first_token_seconds_count"),
            server.metric("elision_inter_token_seconds_count"),
        ]

    before = sample()
    server.ask("POST", route, CHAT)
    server.ask("POST", route, CHAT | {"stream": True})
    server.ask("POST", route, CHAT | {"n": 0})

    steps = [after - was for after, was in zip(sample(), before, strict=True)]
    assert steps == [2, 1, 14, 10, 2, 8]


def test_an_engines_gauges_show_and_odd_names_do_not(server: Any) -> None:
    _, _, page = server.ask("GET", "/metrics")

    assert b"elision_engine_active_sequences 0.0" in page
    assert b"Gauge" not in page


# --- Every response -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/v1/models"])
def test_every_response_has_an_id_of_its_own(server: Any, path: str) -> None:
    first, second = (server.ask("GET", path)[1]["x-request-id"] for _ in range(2))

    assert first != second


def test_a_sane_id_that_is_sent_is_kept_and_another_is_replaced(server: Any) -> None:
    _, kept, _ = server.ask("GET", "/healthz", x_request_id="trace-1.a:b")
    _, replaced, _ = server.ask("GET", "/healthz", x_request_id="my name is Ann")

    assert kept["x-request-id"] == "trace-1.a:b"
    assert replaced["x-request-id"].startswith("req_")


def test_a_whole_reply_says_what_the_gateway_cost(server: Any) -> None:
    server.engine.pause_s = 0.05
    _, headers, _ = server.ask("POST", "/v1/chat/completions", CHAT)

    assert 0 < float(headers["x-elision-overhead-ms"]) < 50


def test_unknown_fields_reach_the_engine_untouched(server: Any) -> None:
    extra = {"user": "u", "x_deep": {"a": [1, None, {"b": "c"}]}}
    server.ask("POST", "/v1/chat/completions", CHAT | extra)

    assert server.engine.plans[-1].request.extra == extra


def test_the_schema_names_every_route(server: Any) -> None:
    paths = json(server.ask("GET", "/openapi.json"))["paths"]

    assert {"/v1/chat/completions", "/v1/completions", "/v1/forget", "/v1/models"} <= set(paths)
