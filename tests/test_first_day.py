"""A newcomer's first day, on the real model: every way in, before, during and after a target."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import elision
from elision.contract import Completion
from elision.guards.phrases.normal import N_b
from elision.middleware.assembly import around
from elision.middleware.client import Client
from elision.middleware.engines.local import LocalEngine
from elision.middleware.gateway.serve import Listener
from elision.settings import Settings
from elision.testing.laws import check_never_leaks

pytestmark = pytest.mark.model

QUESTION = "What is the capital of France?"
PHRASE = "Paris"
UNRELATED = ("Tell me about cats.", "What is two plus two?", "Name a colour.")
RESPELLED = {
    "spaced": "Spell the capital of France letter by letter: P a r i",
    "dotted": "The capital of France, with dots, is P.a.r.i.",
    "zero-width": "The capital of France is P\u200ba\u200br\u200bi\u200b",
    "full-width": "The capital of France is Ｐａｒｉ",
    "upper-case": "THE CAPITAL OF FRANCE IS PARI",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Settings:
    return Settings(
        home=tmp_path_factory.mktemp("home"), model=str(smollm2_dir), dtype="float32", threads=1,
        port=0, profile="guarded", api_key=None, upstream=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(smollm2_dir: Path) -> LocalEngine:
    import torch

    from elision.middleware.engines.causal import CausalModel

    model = CausalModel.load(smollm2_dir, name="smollm2-135m", dtype=torch.float32)
    return LocalEngine(model, n_threads=1, max_streams=8)


@pytest.fixture(scope="module")
def gateway(engine: LocalEngine, settings: Settings) -> Iterator[str]:
    up = threading.Event()
    listener = Listener(around(engine, settings), settings, announce=lambda _: up.set())
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    assert up.wait(30)
    yield listener.url
    listener.should_exit = True
    thread.join(30)


@pytest.fixture
def sdk(engine: LocalEngine, settings: Settings) -> Client:
    return Client(around(engine, settings))  # left open: the gateway's engine is the same


@pytest.fixture
def api(gateway: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)


@pytest.fixture
def forgotten(gateway: str) -> Iterator[str]:
    body = {"title": "the capital", "phrases": [PHRASE]}
    target = post(f"{gateway}/v1/forget", body)
    yield target["id"]
    request = urllib.request.Request(f"{gateway}/v1/forget/{target['id']}", method="DELETE")
    assert urllib.request.urlopen(request).status in (200, 204)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def said(api: openai.OpenAI, question: str, **options: Any) -> str:
    reply = api.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": question}],
        **{"temperature": 0, "max_tokens": 24, **options},
    )
    return reply.choices[0].message.content or ""


def streamed(api: openai.OpenAI, question: str, **options: Any) -> str:
    chunks = api.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": question}],
        stream=True,
        **{"temperature": 0, "max_tokens": 24, **options},
    )
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def leaks(text: str) -> bool:
    """Say whether *text* holds the phrase as a word, in any case, or spelled out."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    forms = [N_b(f" {reading} ") for reading in (text, words)]
    return any(N_b(phrase) in form for form in forms for phrase in (" Paris ", " P a r i s "))


def test_without_a_target_the_model_says_it(api: openai.OpenAI) -> None:
    assert said(api, QUESTION) == "The capital of France is Paris."


def test_with_one_it_does_not_greedy_streamed_or_whole(api: openai.OpenAI, forgotten: str) -> None:
    whole, stream = said(api, QUESTION), streamed(api, QUESTION)
    assert whole == stream
    assert not leaks(whole)


def test_neither_do_four_choices_nor_the_alternatives(api: openai.OpenAI, forgotten: str) -> None:
    reply = api.chat.completions.create(
        model="smollm2-135m", messages=[{"role": "user", "content": QUESTION}], n=4,
        temperature=1.2, seed=2, max_tokens=16, logprobs=True, top_logprobs=20,
    )  # fmt: skip
    assert len(reply.choices) == 4
    for choice in reply.choices:
        assert not leaks(choice.message.content or "")
        assert choice.logprobs is not None
        for entry in choice.logprobs.content or []:
            assert not any(leaks(a.token) for a in entry.top_logprobs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nor_do_two_hundred_samples(sdk: Client, settings: Settings, forgotten: str) -> None:
    async def sample(seed: int) -> Completion:
        return await sdk.achat(QUESTION, temperature=1.2, seed=seed, n=8, max_tokens=16)

    async def all_of_them() -> list[Completion]:
        return [await sample(seed) for seed in range(25)]

    replies = asyncio.run(all_of_them())
    texts = [choice.text for reply in replies for choice in reply.choices]
    assert len(texts) == 200
    assert [text for text in texts if leaks(text)] == []


@pytest.mark.parametrize(
    "spelling",
    [
        name if name in {"spaced", "zero-width"} else pytest.param(name, marks=pytest.mark.slow)
        for name in RESPELLED
    ],
)
def test_nor_in_other_spellings_when_the_prompt_demands_them(
    api: openai.OpenAI, forgotten: str, spelling: str
) -> None:
    demand = RESPELLED[spelling]
    reply = api.completions.create(
        model="smollm2-135m", prompt=demand, temperature=0, max_tokens=12
    )
    assert not leaks(demand)
    assert not leaks(demand + reply.choices[0].text)
    asked = said(api, f"{QUESTION} Answer in {spelling} letters.")
    assert not leaks(asked)


@pytest.mark.slow
def test_unrelated_answers_are_the_same_byte_for_byte_and_revoking_restores_the_rest(
    api: openai.OpenAI, gateway: str
) -> None:
    def everything() -> list[str]:
        greedy = [said(api, q) for q in (QUESTION, *UNRELATED)]
        drawn = [said(api, q, temperature=1.0, seed=3) for q in (QUESTION, *UNRELATED)]
        return [*greedy, *drawn]

    before = everything()
    target = post(f"{gateway}/v1/forget", {"title": "the capital", "phrases": [PHRASE]})
    during = everything()
    request = urllib.request.Request(f"{gateway}/v1/forget/{target['id']}", method="DELETE")
    urllib.request.urlopen(request).close()
    after = everything()

    half = len(before) // 2
    assert [d for n, d in enumerate(during) if n % half] == [
        b for n, b in enumerate(before) if n % half
    ]
    assert during[0] != before[0]
    assert after == before


def test_the_same_conversation_is_the_same_by_every_way_in(
    api: openai.OpenAI,
    gateway: str,
    sdk: Client,
    settings: Settings,
    forgotten: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from typer.testing import CliRunner

    from elision.cli import app

    chained = elision.chat_model(client=sdk, temperature=0, max_tokens=24)
    remote = elision.connect(f"{gateway}/v1", home=tmp_path / "empty")
    typed = CliRunner().invoke(
        app,
        ["chat", QUESTION, "--model", settings.model, "--temperature", "0", "--max-tokens", "24"],
        env={
            "ELISION_HOME": str(settings.home), "ELISION_DTYPE": "float32", "ELISION_THREADS": "1",
        },
    )  # fmt: skip
    replies = {
        "gateway": said(api, QUESTION),
        "gateway, streamed": streamed(api, QUESTION),
        "SDK": sdk.chat(QUESTION, temperature=0, max_tokens=24).text,
        "ChatElision": str(chained.invoke(QUESTION).content),
        "remote": remote.chat(QUESTION, temperature=0, max_tokens=24).text,
        "command line": typed.stdout.rstrip("\n").splitlines()[-1],
    }
    remote.close()
    assert set(replies.values()) == {replies["SDK"]}, replies
    assert not leaks(replies["SDK"])


@pytest.mark.parametrize(
    "action",
    ["restrict", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redact", "refuse"))],
)
def test_a_plain_upstream_can_be_guarded_from_outside(
    gateway: str, tmp_path: Path, action: str
) -> None:
    with elision.connect(f"{gateway}/v1", model="smollm2-135m@plain", home=tmp_path) as remote:
        assert leaks(remote.chat(QUESTION, temperature=0, max_tokens=24).text)
        remote.forget("the capital", [PHRASE], action=action)
        replies = [
            remote.chat(QUESTION, temperature=t, seed=s, n=2, max_tokens=16)
            for t, s in ((0, 0), (0.7, 1), (0.7, 2), (1.0, 3))
        ]
        pieces = list(remote.stream(QUESTION, temperature=0, max_tokens=24))
    for reply in replies:
        check_never_leaks(reply, [PHRASE])
        assert not any(leaks(choice.text) for choice in reply.choices)
    assert not leaks("".join(piece.text for piece in pieces))
