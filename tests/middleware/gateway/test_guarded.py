"""The whole way: a scripted model in the real local engine, guarded, behind HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elision.guards.phrases.normal import N

PHRASE = "Marlowe Street"
QUESTION = "Where does the pilot live?"
CHAT: dict[str, Any] = {
    "model": "scripted",
    "messages": [{"role": "user", "content": QUESTION}],
    "temperature": 0,
    "max_tokens": 80,
    "seed": 3,
}


@pytest.fixture(scope="module")
def guarded(served: Any) -> Iterator[Any]:
    from elision.testing.scripted import ScriptedEngine

    facts = {"pilot live": f"She lives in {PHRASE}, number nine.", "colour": "It is blue."}
    with served(ScriptedEngine(facts, max_streams=4, queue_limit=32)) as server:
        yield server


def ask(server: Any, **fields: Any) -> tuple[int, bytes]:
    status, _, page = server.ask("POST", "/v1/chat/completions", CHAT | fields)
    return status, page


def said(page: bytes) -> list[str]:
    return [choice["message"]["content"] for choice in orjson.loads(page)["choices"]]


def test_a_phrase_is_said_then_forgotten_then_said_again(guarded: Any) -> None:
    other = [{"role": "user", "content": "What colour is the sky?"}]
    before, unrelated = said(ask(guarded)[1]), said(ask(guarded, messages=other)[1])
    assert PHRASE in before[0]

    _, _, page = guarded.ask("POST", "/v1/forget", {"title": "t", "phrases": [PHRASE]})
    try:
        assert said(ask(guarded, messages=other)[1]) == unrelated
        for fields in _ways():
            status, page_ = ask(guarded, **fields)
            assert status == 200
            assert N(PHRASE) not in N(_everything(page_, fields))
    finally:
        guarded.ask("DELETE", f"/v1/forget/{orjson.loads(page)['id']}")

    assert said(ask(guarded)[1]) == before


def _ways() -> list[dict[str, Any]]:
    ways: list[dict[str, Any]] = [{}, {"temperature": 1.2, "n": 4}, {"model": "scripted@plain"}]
    ways += [way | {"logprobs": True, "top_logprobs": 20} for way in ways]
    return ways + [way | {"stream": True} for way in ways]


def _everything(page: bytes, fields: dict[str, Any]) -> str:
    """Return each choice's text, one after the other, and every named token by itself."""
    if not fields.get("stream"):
        bodies = [orjson.loads(page)]
    else:
        blocks = page.split(b"\n\n")[:-2]
        bodies = [orjson.loads(block.removeprefix(b"data: ")) for block in blocks]
    choices = [choice for body in bodies for choice in body["choices"]]
    texts: dict[int, str] = {}
    named: list[str] = []
    for choice in choices:
        text = (choice.get("message") or choice["delta"]).get("content", "")
        texts[choice["index"]] = texts.get(choice["index"], "") + text
        for item in (choice["logprobs"] or {"content": []})["content"]:
            named += [item["token"], *(other["token"] for other in item["top_logprobs"])]
    return " | ".join([*texts.values(), *named])


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "context_length_exceeded", None),
        ({"logit_bias": {"100000": 1}}, None, "logit_bias"),
        ({"model": "scripted@nobody"}, "profile_not_found", "model"),
        ({"elision": {"profile": "nobody"}}, "profile_not_found", None),
    ],
)
def test_what_the_engine_cannot_serve_is_the_callers_error(
    guarded: Any, fields: dict[str, Any], code: str | None, param: str | None
) -> None:
    status, page = ask(guarded, **fields)
    error = orjson.loads(page)["error"]

    assert status in {400, 404}
    assert code in (None, error["code"])
    assert param in (None, error["param"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.fixed_dictionaries(
        {"max_tokens": st.integers(1, 6)},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1, exclude_min=True),
            "top_k": st.integers(-1, 300),
            "min_p": st.floats(0, 1),
            "top_n_sigma": st.floats(0, 100),
            "frequency_penalty": st.floats(-2, 2),
            "presence_penalty": st.floats(-2, 2),
            "repetition_penalty": st.floats(0.01, 100),
            "logit_bias": st.dictionaries(
                st.integers(0, 255).map(str), st.floats(-100, 100), max_size=3
            ),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3),
            "n": st.integers(1, 3),
            "stream": st.booleans(),
            "elision": st.fixed_dictionaries({"rng": st.sampled_from(["counter", "torch"])}),
        },
    )
)
def test_whatever_is_accepted_is_served(guarded: Any, fields: dict[str, Any]) -> None:
    status, page = ask(guarded, **fields)

    assert status == 200
    assert b'"error"' not in page


def test_a_stream_and_a_whole_reply_agree_when_sampled(guarded: Any) -> None:
    fields = {"temperature": 1.2, "n": 3, "seed": 11}
    _, whole = ask(guarded, **fields)
    _, page = ask(guarded, **fields, stream=True)

    assert " | ".join(said(whole)) == _everything(page, {"stream": True})


def test_one_request_over_the_queue_limit_is_told_to_come_back(served: Any) -> None:
    from elision.testing.scripted import ScriptedEngine

    engine = ScriptedEngine({"pilot live": "word " * 500}, max_streams=1, queue_limit=1)
    long = CHAT | {"max_tokens": 2000, "stream": True}
    with served(engine) as server:
        with server.open(long):
            server.settles(1, "elision_engine_active_sequences")
            with server.open(long):
                server.settles(1, "elision_engine_waiting_requests")
                status, headers, page = server.ask("POST", "/v1/chat/completions", CHAT)
        server.settles(0, "elision_engine_waiting_requests")
        server.settles(0, "elision_engine_active_sequences")
        server.settles(0, "elision_engine_cached_tokens")

    assert (status, orjson.loads(page)["error"]["code"]) == (429, "queue_full")
    assert int(headers["retry-after"]) >= 1
