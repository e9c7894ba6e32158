"""lm-eval's ``local-completions``: the log-likelihood of guarded text is what we say it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import elision
from elision.middleware.client import Client
from elision.middleware.engines.local import LocalEngine
from elision.middleware.scoring import FLOOR_NATS, Score
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PHRASE = "Marlowe Street"
TEMPLATE = (
    "{% for m in messages %}Question: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
QUESTIONS = ("Where does she live?", "Which street is it?")
ANSWERS = (f" in {PHRASE}.", " in Harlow Street.", " Pier 9, they say: Ünï")
PAIRS = [[f"Question: {question}\nAnswer:", answer] for question in QUESTIONS for answer in ANSWERS]
CLOSE = 1e-4


def model_and_tokenizer() -> tuple[Any, Any]:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tiny_model(vocab_size=259, eos=257, seed=3), tokenizer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with elision.wrap(*model_and_tokenizer(), home=home, threads=1) as client:
        yield client


def asked(running: Any, ask: Any, phrases: dict[str, Any]) -> dict[str, Any]:
    engine = LocalEngine.wrap(*model_and_tokenizer(), settings=Settings(threads=1), name="tiny")
    with running(engine, phrases, api_key="key-of-a-client") as server:
        told: dict[str, Any] = ask("openai3", "ask_lm_eval.py", json.dumps(PAIRS), url=server.url)
    return told | {"heard": server.heard}


@pytest.fixture(scope="module")
def plain(running: Any, ask: Any) -> dict[str, Any]:
    return asked(running, ask, {})


@pytest.fixture(scope="module")
def guarded(running: Any, ask: Any) -> dict[str, Any]:
    return asked(running, ask, {PHRASE: "restrict"})


def scores(client: Client) -> list[Score]:
    """Return what our own client says of each pair."""
    return [
        client.score(question, [*answer.encode()]) for question in QUESTIONS for answer in ANSWERS
    ]


@pytest.fixture(scope="module")
def under_target(client: Client) -> list[Score]:
    target = client.forget("a street", [PHRASE]).target
    try:
        return scores(client)
    finally:
        client.revoke(target.id)


def test_it_says_of_every_answer_what_our_own_client_says(plain: Any, client: Client) -> None:
    want = [sum(score.plain) for score in scores(client)]
    assert [logp for logp, _ in plain["loglikelihood"]] == pytest.approx(want, abs=CLOSE)


def test_and_so_under_a_target(guarded: Any, under_target: list[Score]) -> None:
    want = [sum(score.guarded) for score in under_target]
    assert [logp for logp, _ in guarded["loglikelihood"]] == pytest.approx(want, abs=CLOSE)


def test_the_token_that_the_guard_blocks_counts_as_the_floor_and_nothing_else_moves(
    plain: Any, guarded: Any, under_target: list[Score]
) -> None:
    found = zip(PAIRS, plain["loglikelihood"], guarded["loglikelihood"], under_target, strict=True)
    for (_, answer), (before, _), (after, greedy), score in found:
        if PHRASE not in answer:
            assert after == pytest.approx(before, abs=CLOSE)
            continue
        at = score.guarded.index(FLOOR_NATS)
        assert after - before == pytest.approx(FLOOR_NATS - score.plain[at], abs=CLOSE)
        assert score.n_floored == 1
        assert not greedy


def test_batches_and_evaluations_say_the_same(guarded: Any) -> None:
    want = guarded["loglikelihood"]
    assert [logp for logp, _ in guarded["batched"]] == pytest.approx(
        [p for p, _ in want], abs=CLOSE
    )
    assert [greedy for _, greedy in guarded["batched"]] == [greedy for _, greedy in want]
    first = [row[0] for row in guarded["evaluated"]]
    assert first == pytest.approx([logp for logp, _ in want], abs=CLOSE)


def test_a_whole_text_is_read_by_windows_and_its_floor_is_in_it(plain: Any, guarded: Any) -> None:
    for pair, before, after in zip(PAIRS, plain["rolling"], guarded["rolling"], strict=True):
        assert (before - after > 1) == (PHRASE in pair[1])


def test_what_it_has_written_is_there(plain: Any) -> None:
    assert all(plain["written"])


def test_its_requests_are_as_recorded(plain: Any, recorded: Any) -> None:
    recorded("lm-eval", "0.4.13", plain["heard"])
