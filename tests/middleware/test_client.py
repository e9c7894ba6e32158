"""The SDK's client: blocking and async, chat and raw text, forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import elision
from elision.errors import ElisionError, NotFoundError, RequestError, TargetError
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import byte_tokenizer

ANSWER = "The painter was Marguerite Delacroix of Lyon."


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    engine = ScriptedEngine({"painter": ANSWER}, name="model")
    pipeline = Pipeline(engines={"model": engine}, register=Register.open(tmp_path))
    with Client(pipeline) as client:
        yield client


def test_a_question_and_a_conversation_give_the_same_reply(client: Client) -> None:
    question = "Who was the painter?"
    turns = [{"role": "user", "content": question}]
    assert client.chat(question, temperature=0).text == ANSWER
    assert client.chat(turns, temperature=0).text == ANSWER


def test_a_stream_spells_the_whole_reply_and_ends_with_usage(client: Client) -> None:
    deltas = list(client.stream("Who was the painter?", temperature=0))
    assert "".join(d.text for d in deltas) == ANSWER
    assert deltas[-1].usage is not None
    assert deltas[-1].report is not None


async def test_async_twins_say_the_same(client: Client) -> None:
    question = "Who was the painter?"
    assert (await client.achat(question, temperature=0)).text == ANSWER
    streamed = [d.text async for d in client.astream(question, temperature=0)]
    assert "".join(streamed) == ANSWER
    raw = await client.acomplete("the painter:", temperature=0, max_tokens=8)
    assert raw.text == client.complete("the painter:", temperature=0, max_tokens=8).text


async def test_async_calls_run_beside_each_other(client: Client) -> None:
    replies = await asyncio.gather(*(client.achat("The painter?", temperature=0) for _ in range(4)))
    assert {r.text for r in replies} == {ANSWER}


def test_leaving_a_stream_early_leaves_the_client_usable(client: Client) -> None:
    for delta in client.stream("Who was the painter?", temperature=0):
        if delta.text:
            break
    assert client.chat("Who was the painter?", temperature=0).text == ANSWER


def test_a_target_holds_until_it_is_revoked(client: Client) -> None:
    done = client.forget("the painter", ["Marguerite Delacroix"], kind="person")
    assert [t.title for t in client.targets()] == ["the painter"]
    assert "Delacroix" not in client.chat("Who was the painter?", temperature=0).text
    client.revoke(done.target.id)
    assert client.targets() == ()
    assert client.chat("Who was the painter?", temperature=0).text == ANSWER


async def test_a_target_can_be_registered_from_async_code(client: Client) -> None:
    done = await client.aforget("t", [{"text": "Marguerite Delacroix", "allow_echo": True}])
    assert done.target.phrases[0].allow_echo


def test_options_go_by_openais_names_and_are_checked(client: Client) -> None:
    assert client.chat("The painter?", temperature=0, max_tokens=3).usage.completion_tokens == 3
    assert len(client.chat("The painter?", n=2, temperature=0).choices) == 2
    assert client.chat("The painter?", temperature=0, profile="plain").report["profile"] == "plain"
    with pytest.raises(RequestError, match="temperature"):
        client.chat("The painter?", temperature=-1)
    with pytest.raises(NotFoundError, match="there is no profile"):
        client.chat("The painter?", profile="nonsense")
    with pytest.raises(TargetError):
        client.forget("nothing", [])


def test_a_deadline_is_an_option(client: Client) -> None:
    done = client.complete("the painter", temperature=1, max_tokens=4000, timeout_s=0.2)
    assert done.usage.completion_tokens < 4000


def test_closing_twice_is_closing_once(client: Client) -> None:
    client.close()
    client.close()


def test_a_model_in_memory_can_be_wrapped(home: Path) -> None:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer))
    with elision.wrap(model, tokenizer, profile="plain") as client:
        first = client.complete("abc", temperature=0, max_tokens=8)
        assert client.complete("abc", temperature=0, max_tokens=8).choices == first.choices
        assert first.report["profile"] == "plain"
    assert (home / "register.db").exists()


def test_an_unknown_model_is_not_found(home: Path) -> None:
    with pytest.raises(ElisionError, match="no model is called"):
        elision.load("nonsense-model")
