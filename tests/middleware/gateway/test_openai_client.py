"""openai-python, unchanged, against the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

USER: Any = [{"role": "user", "content": "What is the capital of France?"}]
SENTENCE = "Paris is the capital."


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="speaker", messages=USER)

    assert reply.object == "chat.completion"
    assert reply.model == "speaker"
    assert reply.id.startswith("chatcmpl-")
    assert reply.choices[0].message.content == SENTENCE
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 12)
    assert reply._request_id is not None
    assert reply.system_fingerprint is not None


def test_a_streamed_chat_says_the_same_and_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="speaker", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0] for chunk in chunks if chunk.choices]

    assert "".join(piece.delta.content or "" for piece in pieces) == SENTENCE
    assert pieces[0].delta.role == "assistant"
    assert pieces[-1].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_several_choices_and_log_probabilities_arrive(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="speaker", messages=USER, n=3, logprobs=True, top_logprobs=2, max_tokens=2
    )

    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in reply.choices} == {"length"}
    logprobs = reply.choices[2].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [item.token for item in logprobs.content] == ["Paris", " is"]
    assert [other.token for other in logprobs.content[0].top_logprobs] == ["x", "y"]


def test_completions_number_the_choices_of_all_prompts(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="speaker", prompt=["One", "Two"], n=2, logprobs=1)

    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert {choice.text for choice in reply.choices} == {SENTENCE}
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (14, 20)
    assert reply.choices[3].logprobs is not None
    assert reply.choices[3].logprobs.text_offset == [0, 5, 8, 12, 20]


def test_a_streamed_completion_says_the_same(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="speaker", prompt=[1, 2, 3], stream=True)

    assert "".join(chunk.choices[0].text for chunk in stream) == SENTENCE


def test_the_async_client_streams(server: Any) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(
                model="speaker", messages=USER, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == SENTENCE


def test_models_are_listed_with_their_profiles(client: openai.OpenAI) -> None:
    models = [model.id for model in client.models.list()]

    assert models[:2] == ["speaker", "speaker@plain"]
    assert client.models.retrieve("speaker@plain").owned_by == "elision"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_the_report_comes_only_if_asked_for(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="speaker", messages=USER)
    asked = client.chat.completions.create(
        model="speaker@plain", messages=USER, extra_body={"elision": {"report": True}}
    )
    streamed = client.chat.completions.create(
        model="speaker", messages=USER, stream=True, extra_body={"elision": {"report": True}}
    )
    *_, last = streamed

    assert not hasattr(plain, "elision")
    assert asked.elision["profile"] == "plain"  # type: ignore[attr-defined]
    assert last.choices == []
    assert last.elision["profile"] == "guarded"  # type: ignore[attr-defined]


def test_a_bad_request_is_its_typed_exception(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="speaker", messages=USER, n=0)

    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")


def test_an_unknown_model_is_its_typed_exception(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="nobody", messages=USER, stream=stream)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_full_queue_is_its_typed_exception(server: Any, client: openai.OpenAI) -> None:
    server.engine.room = 0
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="speaker", messages=USER, stream=stream)
        assert caught.value.code == "queue_full"
        assert caught.value.response.headers["retry-after"] == "3"


def test_a_failure_in_mid_stream_is_an_exception_not_an_end(
    server: Any, client: openai.OpenAI
) -> None:
    server.engine.error = RuntimeError("secret words")
    stream = client.chat.completions.create(model="speaker", messages=USER, stream=True)
    seen: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    server.engine.error = None

    assert "secret" not in str(caught.value)


def test_a_wrong_key_is_its_typed_exception(served: Any) -> None:
    with served(api_key="right") as server:
        for key in ("wrong", "righ", "rightt"):
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
            with client, pytest.raises(openai.AuthenticationError) as caught:
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="right") as client:
            assert client.models.list().data
