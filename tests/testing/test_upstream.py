"""The scripted upstream, read by OpenAI's own client."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from elision.contract import Plan, Request, Sampling, collect
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_tail import Tail

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"model": "scripted", "messages": ASK, "temperature": 0}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    scripted = ScriptedEngine({"capital of france": "Paris is the capital."})
    yield scripted
    asyncio.run(scripted.aclose())


def client(up: ScriptedUpstream, key: str = "k") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=up.url, api_key=key, max_retries=0)


async def streamed(up: ScriptedUpstream, **fields: Any) -> str:
    async with client(up) as asking:
        chunks = await asking.chat.completions.create(**GREEDY, stream=True, **fields)
        return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])


@pytest.mark.parametrize("framing", ["lf", "crlf", "multi", "comments"])
@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_a_stream_reads_the_same_however_it_is_framed_and_cut(framing: str, cut: int) -> None:
    async with ScriptedUpstream("Né 🙂 there", framing=framing, cut=cut) as up:
        assert await streamed(up) == "Né 🙂 there"


@pytest.mark.parametrize("n", [9, 30])
@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_a_model_decodes_as_our_own_engine_does(
    engine: ScriptedEngine, dialect: str, n: int
) -> None:
    fields: Any = {"max_tokens": n, "stop": ["cap"]}
    greedy = Sampling(temperature=0)
    request = Request(messages=tuple(ASK), max_tokens=n, stop=("cap",), sampling=greedy)
    want = (await collect(engine.stream(Plan(request=request)))).choices[0]
    async with ScriptedUpstream(engine, dialect=dialect) as up, client(up) as asking:
        whole = await asking.chat.completions.create(**GREEDY, **fields)
        assert await streamed(up, **fields) == whole.choices[0].message.content == want.text
        assert whole.choices[0].finish_reason == want.finish


async def test_a_bias_moves_the_choice_and_no_log_probability_of_vllms(
    engine: ScriptedEngine,
) -> None:
    fields: Any = {"max_tokens": 1, "logprobs": True, "logit_bias": {"80": -100}}
    logps = {}
    for dialect in ("openai", "vllm"):
        async with ScriptedUpstream(engine, dialect=dialect) as up, client(up) as asking:
            (choice,) = (await asking.chat.completions.create(**GREEDY, **fields)).choices
            assert choice.message.content == "p"
            logps[dialect] = choice.logprobs.content[0].logprob  # type: ignore[union-attr, index]
    assert logps["openai"] > -2 > logps["vllm"]


async def test_a_seed_makes_a_draw_repeatable(engine: ScriptedEngine) -> None:
    async with ScriptedUpstream(engine) as up:
        drawn = [
            await streamed(up, extra_body={"temperature": 2.0, "max_tokens": 12, "seed": seed})
            for seed in (1, 1, 2, 3, 4)
        ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


async def test_bad_words_are_not_written(engine: ScriptedEngine) -> None:
    async with ScriptedUpstream(engine, dialect="vllm") as up:
        assert "Paris" not in await streamed(up, extra_body={"bad_words": ["Paris"]})
        up.dialect = dataclasses.replace(up.dialect, bad_words=False)
        assert "Paris" in await streamed(up, extra_body={"bad_words": ["Paris"]})


async def test_the_ids_of_a_chat_continue_as_the_chat_does(engine: ScriptedEngine) -> None:
    async with ScriptedUpstream(engine, dialect="vllm") as up, client(up) as asking:
        whole: Any = await asking.chat.completions.create(
            **GREEDY, extra_body={"return_token_ids": True}
        )
        ids = whole.prompt_token_ids
        assert len(ids) == whole.usage.prompt_tokens
        text = await asking.completions.create(
            model="scripted", prompt=ids, temperature=0, max_tokens=50
        )
        assert text.choices[0].text == whole.choices[0].message.content
        sent = {"token_ids": ids, "sampling_params": {"max_tokens": 3, "temperature": 0}}
        answer = await asyncio.to_thread(posted, up, "/inference/v1/generate", sent)
        assert answer["choices"][0]["token_ids"] == whole.choices[0].token_ids[:3]


def posted(up: ScriptedUpstream, path: str, body: Any) -> Any:
    connection = http.client.HTTPConnection(up.url[7:-3], timeout=10)
    connection.request("POST", path, json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_on_its_own_thread_it_serves_those_who_block() -> None:
    with ScriptedUpstream(["It ", "works"], key="k") as up:
        with OpenAI(base_url=up.url, api_key="k", max_retries=0) as asking:
            reply = asking.chat.completions.create(**GREEDY)
            assert reply.choices[0].message.content == "It works"
        wrong = OpenAI(base_url=up.url, api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(**GREEDY)
        assert len(up.bodies) == 2
        assert up.bodies[0]["messages"] == ASK


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("400", openai.BadRequestError),
        ("hangs-up", openai.APIConnectionError),
        ("refused", openai.APIConnectionError),
        ("error-event", openai.APIError),
        ("malformed", json.JSONDecodeError),
        ("half-utf8", UnicodeDecodeError),
        ("reset", Exception),
        ("breaks", Exception),
    ],
)
async def test_it_breaks_as_it_was_told_to(fault: str, error: type[Exception]) -> None:
    async with ScriptedUpstream("Hello there", fault=fault) as up:
        with pytest.raises(error):
            await streamed(up)


async def test_faults_are_counted_and_may_depend_on_the_request() -> None:
    async with ScriptedUpstream("Hello", fault=lambda body: "500" if body.get("user") else None,
                                n_faults=1) as up:  # fmt: skip
        assert await streamed(up) == "Hello"
        with pytest.raises(openai.InternalServerError):
            await streamed(up, user="u")
        assert await streamed(up, user="u") == "Hello"
        assert up.n_open == 0


async def test_a_strict_server_refuses_what_it_does_not_know() -> None:
    async with ScriptedUpstream("Hello", dialect="strict") as up:
        with pytest.raises(openai.BadRequestError) as caught:
            await streamed(up, extra_body={"new_in_2031": 1})
        assert caught.value.param == "new_in_2031"


def test_a_stop_text_that_comes_in_pieces_leaves_no_piece_behind() -> None:
    tail = Tail(("END", "FIN"))
    assert "".join(map(tail.add, ["a E", "N", "T F", "I", "N b"])) + tail.rest() == "a ENT "
    assert tail.stopped
