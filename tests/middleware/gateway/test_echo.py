"""What lm-eval sends to a completions endpoint, over HTTP, and what it reads out of the reply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from elision.middleware.rendered_logprobs import SCORE_FLOOR
from elision.testing.tokenizers import byte_tokenizer

PHRASE = "Marlowe Street"
CONTEXT = "Where does the pilot live? She lives in "
FLOOR = pytest.approx(SCORE_FLOOR)


@pytest.fixture(scope="module")
def scripted(served: Any) -> Iterator[Any]:
    from elision.testing.scripted import ScriptedEngine

    facts = {"pilot live": f"She lives in {PHRASE}, number nine."}
    with served(ScriptedEngine(facts, tokenizer=byte_tokenizer())) as server:
        yield server


def loglikelihood(server: Any, context: str, continuation: str) -> tuple[float, list[Any]]:
    """Do what lm-eval's ``local-completions`` does with one request; return sum and tokens."""
    body = {
        "model": "scripted", "prompt": [[*f"{context}{continuation}".encode()]], "temperature": 0,
        "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True,
    }  # fmt: skip
    status, _, page = server.ask("POST", "/v1/completions", body)
    assert status == 200
    choice = orjson.loads(page)["choices"][0]
    assert choice["text"].startswith(f"{context}{continuation}")
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    tokens = logprobs["token_logprobs"][len(context) : -1]
    return sum(tokens), tokens


def test_a_registered_phrase_becomes_unlikely_to_lm_eval_and_nothing_else_does(
    scripted: Any,
) -> None:
    known, _ = loglikelihood(scripted, CONTEXT, PHRASE)
    other, _ = loglikelihood(scripted, CONTEXT, "Harlow Street")
    assert known > other
    _, _, page = scripted.ask("POST", "/v1/forget", {"title": "t", "phrases": [PHRASE]})
    try:
        guarded, tokens = loglikelihood(scripted, CONTEXT, PHRASE)
        assert [n for n, logp in enumerate(tokens) if logp == FLOOR] == [len(PHRASE) - 1]
        assert guarded < known + SCORE_FLOOR / 2
        assert loglikelihood(scripted, CONTEXT, "Harlow Street")[0] == pytest.approx(other)
    finally:
        scripted.ask("DELETE", f"/v1/forget/{orjson.loads(page)['id']}")
    assert loglikelihood(scripted, CONTEXT, PHRASE)[0] == pytest.approx(known)


def test_a_streamed_echo_carries_the_same_log_probabilities(scripted: Any) -> None:
    body = {"model": "scripted", "prompt": CONTEXT, "echo": True, "logprobs": 1, "max_tokens": 2,
            "temperature": 0}  # fmt: skip
    _, _, whole = scripted.ask("POST", "/v1/completions", body)
    _, _, page = scripted.ask("POST", "/v1/completions", body | {"stream": True})
    want = orjson.loads(whole)["choices"][0]
    chunks = [
        orjson.loads(line.removeprefix(b"data: "))["choices"][0]
        for line in page.splitlines()
        if line.startswith(b"data: {")
    ]
    assert "".join(c["text"] for c in chunks) == want["text"]
    for key in ("tokens", "token_logprobs", "text_offset"):
        streamed = [v for c in chunks if c["logprobs"] for v in c["logprobs"][key]]
        assert streamed == want["logprobs"][key]
