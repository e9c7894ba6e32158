"""Limits on a running server, with OpenAI's own client at the other end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.gateway.limits.allowance import Allowance
from elision.testing.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {
    "model": "speaker",
    "messages": [{"role": "user", "content": "Where is it?"}],
    "max_tokens": 20,
}
ASKED = {"include_usage": True}
KEYS = [
    {"name": "slow", "key": "k-slow", "limits": {"requests_per_minute": 120}},
    {"name": "few", "key": "k-few", "limits": {"requests_per_minute": 3}},
    {"name": "small", "key": "k-small", "limits": {"tokens_per_minute": 60}},
    {"name": "done", "key": "k-done", "limits": {"token_budget": 40}},
    {"name": "free", "key": "k-free"},
]  # fmt: skip


@pytest.fixture(scope="module")
def _keyed(served: Any) -> Iterator[Any]:
    with served(keys=KEYS) as server:
        yield server


@pytest.fixture
def keyed(_keyed: Any) -> Any:
    _keyed.engine.pause_s, _keyed.engine.error, _keyed.engine.room = 0.0, None, 64
    _keyed.engine.plans.clear()
    return _keyed


def ask(server: Any, key: str, body: Any = CHAT, path: str = PATH) -> tuple[int, Any, Any]:
    status, headers, page = server.ask("POST", path, body, authorization=f"Bearer {key}")
    told = orjson.loads(page) if headers["content-type"] == "application/json" else page
    return status, headers, told


def allowance(server: Any, name: str) -> Allowance:
    found: Allowance = server.listener.config.app.state.allowances[name]
    return found


def tokens_left(server: Any) -> int:
    return int(dict(allowance(server, "small").headers())[b"x-ratelimit-remaining-tokens"])


def settles_above(server: Any, low: int) -> None:
    """Wait until the key *small* has its tokens back; one comes by itself each second."""
    end = time.monotonic() + 5
    while tokens_left(server) < low:
        assert time.monotonic() < end, tokens_left(server)
        time.sleep(0.005)


def refill(server: Any) -> None:
    tokens: Any = allowance(server, "small")._tokens
    tokens.give(10_000)


def client(server: Any, key: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, **more)


def say(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**(CHAT | more))


def test_the_fourth_of_three_a_minute_is_told_when_to_come_back(keyed: Any) -> None:
    answers = [ask(keyed, "k-few") for _ in range(4)]

    assert [status for status, *_ in answers] == [200, 200, 200, 429]
    assert [head["x-ratelimit-remaining-requests"] for _, head, _ in answers] == [
        "2",
        "1",
        "0",
        "0",
    ]
    _, headers, told = answers[-1]
    assert told["error"]["code"] == "rate_limit_exceeded"
    assert told["error"]["type"] == "requests"
    assert headers["x-should-retry"] == "true"
    assert 15 <= int(headers["retry-after"]) <= 20
    assert 15_000 <= int(headers["retry-after-ms"]) <= 20_000
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-reset-requests"].startswith(("5", "1m0s"))
    assert len(keyed.engine.plans) == 3


def test_of_many_at_once_no_more_are_let_in_than_there_are(served: Any) -> None:
    limits = {"requests_per_minute": 10}
    with served(limits=limits) as server, ThreadPoolExecutor(24) as pool:
        server.engine.room, server.engine.pause_s = 64, 0.02
        began = time.monotonic()
        found = list(pool.map(lambda _: server.ask("POST", PATH, CHAT)[0], range(40)))
        n_let_in = found.count(200)
        assert sorted(set(found)) == [200, 429]
        assert 10 <= n_let_in <= 10 + (time.monotonic() - began) / 6
        server.settles(40 - n_let_in, "elision_rate_limited_total", kind="requests")


def test_openais_client_comes_back_when_it_is_told_to(keyed: Any) -> None:
    requests: Any = allowance(keyed, "slow")._requests
    refused = keyed.metric("elision_rate_limited_total", kind="requests")
    began = time.monotonic()
    requests.owe(requests.left + 2)  # two a second come back: there is one again after a second
    with client(keyed, "k-slow", max_retries=1) as one:
        reply = say(one)
    assert reply.choices[0].message.content == "Paris is the capital."
    assert time.monotonic() - began >= 1.0
    keyed.settles(refused + 1, "elision_rate_limited_total", kind="requests")


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_not_used_is_given_back_and_every_answer_says_what_is_left(
    keyed: Any, stream: bool
) -> None:
    refill(keyed)
    status, headers, _ = ask(keyed, "k-small", CHAT | {"stream": stream})

    assert status == 200
    assert headers["x-ratelimit-limit-tokens"] == "60"
    # 7 for the prompt and 20 for the reply are set aside while it is written.
    assert int(headers["x-ratelimit-remaining-tokens"]) in range(33, 40)
    settles_above(keyed, 48)
    assert tokens_left(keyed) < 60  # 12 were used


def test_a_stream_that_its_client_leaves_costs_what_had_left(keyed: Any) -> None:
    refill(keyed)
    keyed.engine.pause_s = 0.15
    body = orjson.dumps(CHAT | {"stream": True, "max_tokens": 50})
    host, port = keyed.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k-small\r\n"
        line.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        while b"Paris" not in line.recv(65536):
            pass
        assert tokens_left(keyed) < 15
    settles_above(keyed, 45)
    assert tokens_left(keyed) < 60


def test_a_reply_that_fails_before_it_begins_costs_nothing(keyed: Any) -> None:
    refill(keyed)
    keyed.engine.room = 0
    status, headers, told = ask(keyed, "k-small", CHAT | {"max_tokens": 50})

    assert (status, told["error"]["code"]) == (429, "queue_full")
    assert headers["retry-after-ms"] == "2500"
    assert "x-ratelimit-limit-tokens" in headers
    assert tokens_left(keyed) == 60


def test_a_reply_that_breaks_costs_what_had_left(keyed: Any) -> None:
    refill(keyed)
    keyed.engine.error = ValueError("no")
    ask(keyed, "k-small", CHAT | {"stream": True, "max_tokens": 50})
    settles_above(keyed, 45)
    assert tokens_left(keyed) < 60


@pytest.mark.parametrize("body", [b"{", {"model": "speaker"}, CHAT | {"model": "nobody@plain"}])
def test_a_request_that_cannot_be_read_costs_no_tokens_and_is_told_the_rest(
    keyed: Any, body: Any
) -> None:
    refill(keyed)
    status, headers, _ = ask(keyed, "k-small", body)
    assert status in (400, 404)
    assert headers["x-ratelimit-remaining-tokens"] in ("59", "60")
    assert tokens_left(keyed) >= 59


def test_more_than_a_minute_ever_has_is_not_worth_a_new_try(keyed: Any) -> None:
    with client(keyed, "k-small", max_retries=6) as one:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError, match="max_tokens") as caught:
            say(one, max_tokens=2000)
    assert time.monotonic() - began < 5  # six more tries take twenty seconds
    assert caught.value.type == "tokens"
    assert keyed.engine.plans == []


def test_a_spent_budget_is_told_as_openai_does_and_not_tried_again(keyed: Any) -> None:
    with client(keyed, "k-done", max_retries=3) as one:
        say(one)
        with pytest.raises(openai.RateLimitError) as caught:
            say(one, max_tokens=33)
    assert caught.value.code == caught.value.type == "insufficient_quota"
    assert "28 are left" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(keyed.engine.plans) == 1
    keyed.settles(1, "elision_rate_limited_total", kind="budget")


def test_a_budget_outlives_the_process(served: Any, tmp_path: Path) -> None:
    settings = {"home": tmp_path, "limits": {"token_budget": 40, "budget_period": "total"}}
    with served(**settings) as server:
        assert server.ask("POST", PATH, CHAT)[0] == 200
    with served(**settings) as server:
        assert server.ask("POST", PATH, CHAT)[0] == 200
    with served(**settings) as server:
        status, _, page = server.ask("POST", PATH, CHAT)
        assert (status, b"16 are left" in page) == (429, True)
        assert server.ask("POST", PATH, CHAT | {"max_tokens": 5})[0] == 200


def test_keys_do_not_share_and_what_is_not_limited_says_nothing(keyed: Any) -> None:
    status, headers, _ = ask(keyed, "k-free")
    assert status == 200
    assert [name for name in headers if name.startswith("x-ratelimit")] == []
    for key in ("k-few", "k-done"):
        status, headers, _ = keyed.ask("GET", "/v1/models", authorization=f"Bearer {key}")
        assert status == 200
        assert [name for name in headers if name.startswith("x-ratelimit")] == []
    assert keyed.ask("POST", PATH, CHAT, authorization="Bearer wrong")[0] == 401


@pytest.mark.parametrize("stream", [False, True])
def test_responses_count_too(keyed: Any, stream: bool) -> None:
    refill(keyed)
    body = {"model": "speaker", "input": "Where is it?", "stream": stream}
    status, _, told = ask(keyed, "k-small", body | {"max_output_tokens": 200}, "/v1/responses")
    assert (status, told["error"]["type"]) == (429, "tokens")
    status, headers, _ = ask(keyed, "k-small", body | {"max_output_tokens": 20}, "/v1/responses")
    assert status == 200
    assert int(headers["x-ratelimit-remaining-tokens"]) in range(33, 49)
    settles_above(keyed, 48)
    assert tokens_left(keyed) < 60


def test_a_list_of_prompts_counts_as_one_request_of_all(keyed: Any) -> None:
    refill(keyed)
    body = {"model": "speaker", "prompt": ["One", "Two"], "n": 2, "max_tokens": 300}
    status, _, told = ask(keyed, "k-small", body, "/v1/completions")
    assert (status, told["error"]["type"]) == (429, "tokens")
    status, _, told = ask(keyed, "k-small", body | {"max_tokens": 3}, "/v1/completions")
    assert (status, told["usage"]["total_tokens"]) == (200, 26)
    assert tokens_left(keyed) in range(34, 45)


def test_what_an_upstream_says_is_counted_asked_or_not(served: Any) -> None:
    words = ["It", " is", " there", "."]
    limits = {"tokens_per_minute": 6000, "token_budget": 9000}
    with ScriptedUpstream(words, dialect="llama.cpp") as upstream:
        engine = RemoteEngine(upstream.url, model="scripted", name="far", timeout_s=5)
        with served(engine, limits=limits) as server:
            account = allowance(server, "open").account
            assert account is not None
            before = 9000
            for options in ({}, {"stream": True}, {"stream": True, "stream_options": ASKED}):
                body = CHAT | {"model": "far@passthrough"} | options
                status, headers, _ = server.ask("POST", PATH, body)
                assert (status, headers["x-ratelimit-limit-tokens"]) == (200, "6000")
                end = time.monotonic() + 5
                while account._held and time.monotonic() < end:
                    time.sleep(0.01)
                server.settles(0, "elision_requests_in_flight", route="/v1/chat/completions")
                told = server.metric("elision_tokens_total", kind="prompt")
                told += server.metric("elision_tokens_total", kind="completion")
                assert 9000 - account.left == told
                assert before - account.left >= len(words)
                assert ("x-elision-relayed" in headers) == (options != {"stream": True})
                before = account.left


@pytest.fixture(scope="module")
def once(served: Any) -> Iterator[Any]:
    once = {"requests_per_minute": 1}
    with served(keys=[{"name": f"k{n}", "key": f"k-{n}", "limits": once} for n in range(7)]) as one:
        yield one


@pytest.mark.parametrize(
    ("n", "method", "path", "body"),
    [
        (0, "POST", "/tokenize", {"prompt": "x"}),
        (1, "POST", "/detokenize", {"tokens": [1]}),
        (2, "GET", "/tokenizer_info", None),
        (3, "POST", "/v1/check", {"text": "x"}),
        (4, "POST", "/beta/litellm_basic_guardrail_api", {"input_type": "request", "texts": ["x"]}),
        (5, "GET", "/v1/responses/resp_0", None),
        (6, "GET", "/v1/responses/resp_0/input_items?limit=1", None),
    ],
)
def test_what_works_without_writing_counts_as_a_request(
    once: Any, n: int, method: str, path: str, body: Any
) -> None:
    key = f"Bearer k-{n}"
    first, headers, _ = once.ask(method, path, body, authorization=key)
    assert first < 429
    assert headers["x-ratelimit-remaining-requests"] == "0"
    status, headers, page = once.ask(method, path, body, authorization=key)
    assert (status, orjson.loads(page)["error"]["type"]) == (429, "requests")
    assert "retry-after" in headers
    assert once.ask("GET", "/v1/models", authorization=key)[0] == 200
    assert once.ask("DELETE", "/v1/responses/resp_0", authorization=key)[0] == 404
