"""Guidance over HTTP: streams, choices, echoes, cached prompts, and what is refused in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

SAID = "The ferry to Skarn leaves at six."
METHODS: dict[str, Any] = {
    "mti": {"tau": 1.0, "negative": "ERROR"},
    "cfg": True,
    "cad": {"context": "leaves at six"},
    "contrast": {"towards": "calm", "away": "cross"},
    "cd": {"assistant": "small"},
    "uld": {"assistant": "small"},
    "delta": {"before": "small", "after": "other"},
}


@pytest.fixture(scope="module")
def guided(served: Any) -> Iterator[Any]:
    tokenizer = byte_tokenizer()
    model, small, other = (
        CausalModel(tiny_model(vocab_size=len(tokenizer), seed=seed), tokenizer, name=f"m{seed}")
        for seed in range(3)
    )
    with served(LocalEngine(model, assistants={"small": small, "other": other})) as server:
        yield server


def body(guidance: Any = None, **fields: Any) -> dict[str, Any]:
    own = {"report": True} | fields.pop("elision", {})
    own |= {} if guidance is None else {"guidance": guidance}
    turns = [{"role": "user", "content": SAID}]
    return {"model": "m0@plain", "messages": turns, "max_tokens": 10, "temperature": 0,
            "elision": own} | fields  # fmt: skip


def ask(server: Any, sent: dict[str, Any], path: str = "/v1/chat/completions") -> dict[str, Any]:
    status, _, page = server.ask("POST", path, sent)
    assert status == 200, page
    return dict(orjson.loads(page))


def raw(guidance: Any = None, **fields: Any) -> dict[str, Any]:
    sent = body(guidance, **fields)
    return {k: v for k, v in sent.items() if k != "messages"} | {"prompt": SAID}


def refused(server: Any, sent: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    status, _, page = server.ask("POST", path, sent)
    assert status == 400, page
    assert SAID[:9].encode() not in page
    return orjson.loads(page)["error"]


def texts(reply: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in reply["choices"]]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_says_something_else_and_tells_where_it_acted(guided: Any, method: str) -> None:
    plain, done = ask(guided, body()), ask(guided, body({method: METHODS[method]}))
    assert texts(done) != texts(plain)
    assert 0 < done["elision"]["notes"][f"{method}_guided"] <= 10
    assert done["usage"]["completion_tokens"] == 10
    assert "usage" not in plain["elision"]
    others = {"mti": 0, "contrast": 2, "delta": 2}.get(method, 1)
    read = done["elision"]["usage"].get("branch_tokens", 0)
    assert (read >= 10 * others - others) if others else read == 0


def test_methods_act_together(guided: Any) -> None:
    both = ask(guided, body({"cfg": True, "cd": METHODS["cd"]}))
    alone = [ask(guided, body({name: METHODS[name]})) for name in ("cfg", "cd")]
    assert both["elision"]["notes"] == {"cfg_guided": 10.0, "cd_guided": 10.0}
    assert texts(both) not in [texts(one) for one in alone]


@pytest.mark.parametrize("method", ["mti", "cfg", "cd"])
def test_a_stream_and_several_choices_say_what_one_whole_reply_says(
    guided: Any, method: str
) -> None:
    sampling = {"temperature": 1, "seed": 5}
    whole = ask(guided, body({method: METHODS[method]}, n=3, **sampling))
    assert len(set(texts(whole))) > 1
    one = ask(guided, body({method: METHODS[method]}, **sampling))
    assert texts(one) == texts(whole)[:1]
    sent = body({method: METHODS[method]}, n=3, stream=True, **sampling)
    _, _, page = guided.ask("POST", "/v1/chat/completions", sent)
    events = [orjson.loads(e[6:]) for e in page.split(b"\n\n") if e.startswith(b"data: {")]
    streamed = ["", "", ""]
    for choice in (choice for event in events for choice in event["choices"]):
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts(whole)
    told = next(event["elision"] for event in events if not event["choices"])
    assert told["notes"] == whole["elision"]["notes"]
    assert told["usage"] == whole["elision"]["usage"]


@pytest.mark.parametrize("method", ["mti", "cfg"])
def test_a_cached_prompt_changes_nothing(guided: Any, method: str) -> None:
    sent = body({method: METHODS[method]}, messages=[{"role": "user", "content": SAID * 3}])
    first, again = ask(guided, sent), ask(guided, sent)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 64
    assert texts(first) == texts(again)
    assert texts(ask(guided, sent | {"elision": sent["elision"] | {"deterministic": True}})) == (
        texts(first)
    )


def test_an_echo_stands_before_a_guided_reply(guided: Any) -> None:
    path = "/v1/completions"
    written = ask(guided, raw({"cfg": True}), path)["choices"][0]["text"]
    echoed = ask(guided, raw({"cfg": True}, echo=True), path)["choices"][0]["text"]
    assert echoed == SAID + written
    assert written != ask(guided, raw(), path)["choices"][0]["text"]


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "n": 2}])
def test_what_cannot_be_opened_is_refused_before_an_echo_leaves(
    guided: Any, more: dict[str, Any]
) -> None:
    sent = raw({"cad": {"context": "not in it"}}, echo=True, **more)
    error = refused(guided, sent, "/v1/completions")
    assert error["param"] == "elision.guidance.cad"
    assert "not in it" not in error["message"]


def test_an_unknown_assistant_is_refused_with_the_names_of_those_there_are(guided: Any) -> None:
    error = refused(guided, body({"uld": {"assistant": "nobody"}}, stream=True))
    assert (error["param"], error["code"]) == ("elision.guidance.uld", "assistant_missing")
    assert "'other', 'small'" in error["message"]


def test_a_search_by_beams_is_refused_guidance(guided: Any) -> None:
    error = refused(guided, body({"cfg": True}, model="m0@guard-paper"))
    assert (error["param"], error["code"]) == ("elision.guidance.cfg", "capability_missing")
    assert "'m0 by beam search'" in error["message"]


def test_the_profile_reasoning_is_guided_by_share_and_a_request_may_say_otherwise(
    guided: Any,
) -> None:
    def told(**fields: Any) -> dict[str, Any]:
        return dict(ask(guided, body(**{"model": "m0@reasoning", **fields}))["elision"])

    assert told()["notes"]["mti_gate_seen"] == 10
    assert told()["usage"]["mti_usage"] == told()["notes"].get("mti_guided", 0) / 10
    assert "mti_gate_seen" not in told(guidance={"mti": None})["notes"]
    always = told(guidance={"mti": {"gate": "always"}})
    assert always["notes"]["mti_guided"] == 10
    added = told(guidance={"cfg": True})["notes"]
    assert added["cfg_guided"] == added["mti_gate_seen"] == 10


def test_a_reply_that_was_guided_at_most_positions_carries_a_warning(
    guided: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="elision"):
        done = ask(guided, body({"mti": {"tau": -1, "negative": "ERROR"}}))
    assert done["elision"]["usage"]["mti_usage"] == 1
    (warning,) = done["elision"]["warnings"]
    assert warning["code"] == "mti_usage"
    assert [record.getMessage() for record in caplog.records] == [f"m0: {warning['message']}"]
    seldom = ask(guided, body({"mti": {"tau": 100}}))["elision"]
    assert seldom["usage"]["mti_usage"] == 0
    assert "warnings" not in seldom


def test_a_trace_tells_the_recipe_and_its_branch(guided: Any) -> None:
    own = {"trace": True}
    done = ask(guided, body({"mti": METHODS["mti"], "cfg": True}, elision=own))
    entries = done["choices"][0]["elision"]["trace"]
    assert len(entries) == 10
    assert all("Guidance" in entry["acted"] for entry in entries)
    guided_by_mti = [entry for entry in entries if "MinimalIntervention" in entry["acted"]]
    assert len(guided_by_mti) == done["elision"]["notes"]["mti_guided"]
    assert all(entry["branches"] == ["suffix", "prompt"] for entry in guided_by_mti)


def test_a_guided_answer_can_be_scored(guided: Any) -> None:
    sent = raw({"mti": {"gate": "always", "negative": "ERROR"}}, echo=True, logprobs=0)
    path = "/v1/completions"
    guided_, plain = (
        ask(guided, each, path)["choices"][0]["logprobs"]["token_logprobs"][1 : len(SAID)]
        for each in (sent, raw(echo=True, logprobs=0))
    )
    assert guided_ != plain
    assert all(logprob <= 0 for logprob in guided_)
