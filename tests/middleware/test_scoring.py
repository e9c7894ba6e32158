"""Guarded log-likelihood: the score of a given answer, and echoed prompts as lm-eval wants them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elision
from elision.contract import (
    ALLOW,
    Context,
    Here,
    Plan,
    Recipe,
    Redact,
    Refuse,
    Request,
    Rewind,
    Sampling,
    Stage,
    Stateless,
    Verdict,
    collect,
)
from elision.errors import BusyError, CapabilityError, ContextLengthError, RequestError
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.pipeline import Pipeline
from elision.middleware.rendering import Head, text_completion
from elision.middleware.scoring import FLOOR_NATS
from elision.middleware.wire import parse_completion
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.text_engine import TextEngine
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

SECRET = "Zorblatt Quimby"
ANSWER = f"It was {SECRET} of Lyon."
QUESTION = "Who was the painter?"
EOS = 257


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(vocab_size=259, eos=EOS, seed=3)


@pytest.fixture
def client(model: Any, tmp_path: Path) -> Iterator[Client]:
    with elision.wrap(model, byte_tokenizer(), home=tmp_path, threads=1) as client:
        yield client


def oracle(model: Any, ids: list[int]) -> list[float]:
    """Log-probability of each id but the first, by one plain forward without a cache."""
    with torch.inference_mode():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [float(logp[at, token]) for at, token in enumerate(ids[1:])]


def rendered(question: str, answer: str) -> tuple[list[int], list[int]]:
    tokenizer = byte_tokenizer()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    return list(prompt), [*answer.encode(), EOS]


# --- laws ----------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(answer=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=40))
def test_without_targets_both_scores_are_the_models_own(
    model: Any, tmp_path_factory: Any, answer: str
) -> None:
    with elision.wrap(model, byte_tokenizer(), home=tmp_path_factory.mktemp("h"), threads=1) as c:
        score = c.score(QUESTION, answer)
    prompt, ids = rendered(QUESTION, answer)
    expected = oracle(model, [*prompt, *ids])[len(prompt) - 1 :]
    assert score.plain == pytest.approx(expected, abs=1e-4)
    assert score.guarded == pytest.approx(expected, abs=1e-4)
    assert score.n_floored == 0
    assert score.loss == pytest.approx(-sum(expected) / len(ids), abs=1e-4)


def test_a_teacher_forced_score_is_what_writing_the_same_tokens_reports(client: Client) -> None:
    client.forget("a target", ["qqzz", "e"])
    wrote = client.chat(QUESTION, temperature=0, max_tokens=60, logprobs=True, top_logprobs=0)
    entries = wrote.choices[0].logprobs
    score = client.score(QUESTION, [b for entry in entries for b in entry.data])
    assert len(score.tokens) == len(entries) == 60
    assert score.guarded == pytest.approx([e.logprob for e in entries], abs=1e-4)
    assert score.guarded != pytest.approx(score.plain, abs=1e-4)  # the mask took mass away


def test_text_longer_than_one_chunk_scores_as_in_one_forward(model: Any, client: Client) -> None:
    answer = "All the way down to the sea, " * 12
    prompt, ids = rendered(QUESTION, answer)
    assert len(ids) > 256
    expected = oracle(model, [*prompt, *ids])[len(prompt) - 1 :]
    assert client.score(QUESTION, answer).plain == pytest.approx(expected, abs=1e-3)


def test_a_score_leaves_nothing_behind(client: Client) -> None:
    before = client.chat(QUESTION, temperature=0, max_tokens=20).text
    client.score(QUESTION, ANSWER)
    assert client.chat(QUESTION, temperature=0, max_tokens=20).text == before
    assert client._pipeline.stats()["cached_tokens"] == 0


# --- under guard ---------------------------------------------------------------------------------


def test_the_token_that_completes_a_phrase_is_floored_and_the_walk_goes_on(client: Client) -> None:
    plain = client.score(QUESTION, ANSWER)
    client.forget("a target", [SECRET])
    score = client.score(QUESTION, ANSWER)
    blocked = ANSWER.index(SECRET) + len(SECRET) - 1
    assert score.n_floored == 1
    assert score.guarded[blocked] == FLOOR_NATS == math.log(1e-10)
    assert score.plain == plain.plain
    behind = slice(blocked + 1, None)  # the gold token was fed although it was blocked
    assert score.guarded[behind] == pytest.approx(plain.guarded[behind], abs=1e-4)
    twice = client.score(QUESTION, f"{SECRET} and {SECRET}")
    assert twice.n_floored == 2


@pytest.mark.parametrize("action", ["redact", "refuse"])
def test_what_would_be_redacted_or_refused_has_no_probability_either(
    client: Client, action: str
) -> None:
    client.forget("a target", [SECRET], action=action)
    score = client.score(QUESTION, ANSWER)
    assert score.n_floored >= 1
    assert score.applicable
    assert client.score(QUESTION, "It was nobody.").n_floored == 0


def test_an_observed_phrase_costs_nothing(client: Client) -> None:
    client.forget("a target", [SECRET], action="observe")
    assert client.score(QUESTION, ANSWER).n_floored == 0


async def scored(model: Any, recipes: tuple[Recipe, ...], **more: Any) -> Any:
    engine = LocalEngine(CausalModel(model, byte_tokenizer(), name="m"), n_threads=1)
    request = Request(
        messages=({"role": "user", "content": QUESTION},), answer="abcdef", sampling=Sampling()
    )
    try:
        return await collect(engine.stream(Plan(request=request, recipes=recipes, **more)))
    finally:
        await engine.aclose()


@dataclass(frozen=True, slots=True)
class Once:
    """Gives *says* right behind the *at*-th token and nowhere else; at 0, before the first."""

    at: int
    says: Verdict
    n_read: int = 0
    stage = Stage.HARD_MASK
    rank = 0
    held = 0

    @property
    def verdict(self) -> Verdict:
        return self.says if self.n_read == self.at else ALLOW

    def begin(self, context: Context) -> Once:
        return self

    def advance(self, token: int) -> Once:
        return Once(self.at, self.says, self.n_read + 1)

    def finish(self) -> Once:
        return Once(self.at, self.says, -1)

    def adjust(self, logits: Any, here: Here) -> Any:
        return logits


@pytest.mark.parametrize(
    ("says", "struck"),
    [(Rewind(1, frozenset()), 1), (Refuse(), 3), (Redact(0, 4, "x"), 3)],
    ids=["rewind", "refuse", "redact"],
)
async def test_a_token_that_a_verdict_takes_back_is_struck(
    model: Any, says: Verdict, struck: int
) -> None:
    done = await scored(model, (Once(4, says),))
    entries = done.choices[0].logprobs
    assert [n for n, e in enumerate(entries) if e.logprob == -math.inf] == [struck]
    assert done.report["n_floored"] == 1
    assert done.report["applicable"] is True


async def test_where_the_gate_refuses_the_score_is_not_applicable(model: Any) -> None:
    done = await scored(model, (Once(0, Refuse()),))
    assert done.report["applicable"] is False
    assert {e.logprob for e in done.choices[0].logprobs} == {-math.inf}
    assert all(math.isfinite(e.plain) for e in done.choices[0].logprobs)


async def test_sessions_open_only_when_nothing_is_pending(model: Any) -> None:
    gate: Future[int] = Future()

    @dataclass(frozen=True, slots=True)
    class Waits(Stateless):
        stage = Stage.HARD_MASK

        def begin(self, context: Context) -> Waits:
            assert gate.done()
            return self

        def adjust(self, logits: Any, here: Here) -> Any:
            return logits

    work = asyncio.ensure_future(scored(model, (Waits(),), pending=(gate,)))
    await asyncio.sleep(0.05)
    assert not work.done()
    gate.set_result(1)
    assert (await work).report["n_scored"] == 7


async def test_a_gate_that_never_speaks_ends_at_the_deadline(model: Any) -> None:
    engine = LocalEngine(CausalModel(model, byte_tokenizer(), name="m"), n_threads=1)
    request = Request(
        messages=({"role": "user", "content": QUESTION},), answer="abc", timeout_s=0.05
    )
    with pytest.raises(BusyError):
        await collect(engine.stream(Plan(request=request, pending=(Future(),))))
    await engine.aclose()


# --- refusals ------------------------------------------------------------------------------------


def test_an_answer_must_have_tokens_of_the_vocabulary(client: Client) -> None:
    for answer in ([], [259], [-1]):
        with pytest.raises(RequestError) as caught:
            client.score(QUESTION, answer)
        assert caught.value.param == "answer"
    with pytest.raises(ContextLengthError):
        client.score(QUESTION, "x" * 600)


def test_an_engine_that_only_speaks_text_cannot_score(tmp_path: Path) -> None:
    pipeline = Pipeline(
        engines={"t": TextEngine(ANSWER, name="t")}, register=Register.open(tmp_path)
    )
    with Client(pipeline) as client, pytest.raises(CapabilityError):
        client.score(QUESTION, ANSWER)


async def test_the_async_twin_scores_the_same(client: Client) -> None:
    assert await client.ascore(QUESTION, ANSWER) == client.score(QUESTION, ANSWER)


# --- /v1/completions with echo -------------------------------------------------------------------


def echoed(client: Client, prompt: Any, **fields: Any) -> dict[str, Any]:
    """Send what lm-eval sends, through the same parser and renderer as the gateway."""
    body = {"model": client.model, "prompt": prompt, "echo": True, "temperature": 0, **fields}
    parsed = parse_completion(body)
    run = client._pipeline.run(parsed.request, tenant=client.tenant)
    completion = client._loop.run(collect(run))
    head = Head(id="x", created=0, model="m", fingerprint="f")
    choice: dict[str, Any] = text_completion(head, completion, logprobs="logprobs" in fields)[
        "choices"
    ][0]
    return choice


def test_an_echo_has_a_logprob_for_every_token_but_the_first(model: Any, client: Client) -> None:
    ids = list(b"The quick brown fox")
    choice = echoed(client, [ids], logprobs=1, max_tokens=1, seed=1)
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("The quick brown fox")
    assert logprobs["tokens"][: len(ids)] == [chr(i) for i in ids]
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert logprobs["token_logprobs"][1 : len(ids)] == pytest.approx(oracle(model, ids), abs=1e-4)
    assert logprobs["text_offset"][: len(ids)] == list(range(len(ids)))
    assert len(logprobs["tokens"]) == len(ids) + 1  # one was written, as max_tokens asks
    with torch.inference_mode():
        best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    assert logprobs["token_logprobs"][-1] == pytest.approx(
        oracle(model, [*ids, best])[-1], abs=1e-4
    )


def test_lm_evals_greedy_flag_is_the_models(model: Any, client: Client) -> None:
    start = list(b"Once upon a")
    with torch.inference_mode():
        ids = list(start)
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    wrong = [*ids[:-1], (ids[-1] + 1) % 256]
    for prompt, is_greedy in ((ids, True), (wrong, False)):
        logprobs = echoed(client, [prompt], logprobs=1, max_tokens=1)["logprobs"]
        scored = slice(len(start), -1)
        tops = [max(top.values()) for top in logprobs["top_logprobs"][scored]]
        assert (logprobs["token_logprobs"][scored] == tops) is is_greedy


def test_max_tokens_nought_echoes_and_writes_nothing(client: Client) -> None:
    for prompt in ("Some text.", list(b"Some text.")):
        choice = echoed(client, prompt, logprobs=2, max_tokens=0)
        assert (choice["text"], choice["finish_reason"]) == ("Some text.", "length")
        assert len(choice["logprobs"]["tokens"]) == 10
        assert echoed(client, prompt, max_tokens=0)["text"] == "Some text."


def test_without_echo_something_must_be_written() -> None:
    with pytest.raises(RequestError):
        parse_completion({"model": "m", "prompt": "x", "max_tokens": 0})


def test_an_echoed_phrase_comes_back_unaltered_and_floored_and_nothing_names_it(
    tmp_path: Path,
) -> None:
    texts = [ANSWER, SECRET, "Zorblatt Quimper of Lyon was a painter."] * 5
    tokenizer = word_tokenizer(texts, vocab_size=400)
    last = tokenizer(f" {SECRET}")["input_ids"][-1]
    engine = ScriptedEngine({"painter": ANSWER}, tokenizer=tokenizer, name="m")
    pipeline = Pipeline(engines={"m": engine}, register=Register.open(tmp_path))
    with Client(pipeline) as client:
        prompt = tokenizer(f"{QUESTION} {ANSWER}")["input_ids"]
        at = len(prompt) - 1 - prompt[::-1].index(last)
        free = echoed(client, [prompt], logprobs=20, max_tokens=1)["logprobs"]
        client.forget("a target", [SECRET])
        choice = echoed(client, [prompt], logprobs=20, max_tokens=1)
    held = choice["logprobs"]
    word = tokenizer.decode([last])
    assert word in free["top_logprobs"][at]
    assert word not in held["top_logprobs"][at]
    assert held["token_logprobs"][at] == FLOOR_NATS
    assert held["tokens"][at] == word
    assert choice["text"].startswith(f"{QUESTION} {ANSWER}")


def test_every_choice_begins_with_the_echo(client: Client) -> None:
    body = {"model": client.model, "prompt": "ab", "echo": True, "logprobs": 1, "n": 2}
    request = parse_completion({**body, "max_tokens": 3, "seed": 1}).request
    done = client._loop.run(collect(client._pipeline.run(request)))
    assert [c.text[:2] for c in done.choices] == ["ab", "ab"]
    assert {c.finish for c in done.choices} == {"length"}
    assert all(len(c.logprobs) == 5 for c in done.choices)
    assert math.isnan(done.choices[1].logprobs[0].logprob)


def test_offsets_grow_with_the_text(client: Client) -> None:
    logprobs = echoed(client, "abc", logprobs=1, max_tokens=4)["logprobs"]
    steps = [b - a for a, b in pairwise(logprobs["text_offset"])]
    assert steps == [len(token) for token in logprobs["tokens"][:-1]]


# --- a real model --------------------------------------------------------------------------------


@pytest.mark.model
def test_smollm2_scores_as_transformers_does(smollm2_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    real = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    turns = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    answer = "The Eiffel Tower is in Paris, the capital of France."
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    expected = oracle(real, [*prompt, *ids])[len(prompt) - 1 :]
    with elision.wrap(real, tokenizer, home=tmp_path, threads=1) as client:
        score = client.score("Where is the Eiffel Tower?", answer)
        assert score.guarded == pytest.approx(expected, abs=1e-4)
        client.forget("a target", ["capital of France"])
        held = client.score("Where is the Eiffel Tower?", answer)
    assert held.n_floored == 1
    assert held.loss > score.loss
