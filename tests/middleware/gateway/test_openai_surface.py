"""The corners of OpenAI's surface, asked for by its own client: fields, shapes, errors, retries."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import openai
import orjson
import pytest

from elision.errors import BusyError
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import byte_tokenizer

USER: Any = [{"role": "user", "content": "What is the capital of France?"}]
SENTENCE = "Paris is the capital."
WORDS = ["Paris", " is", " the", " capital", "."]
EVERY_FIELD: dict[str, Any] = {
    "audio": None, "frequency_penalty": 0, "function_call": None, "functions": None,
    "logit_bias": {"5": -1}, "max_completion_tokens": 50, "metadata": {"a": "b"},
    "modalities": ["text"], "moderation": None, "parallel_tool_calls": None, "prediction": None,
    "presence_penalty": 0, "prompt_cache_key": "k", "prompt_cache_retention": None,
    "reasoning_effort": None, "response_format": {"type": "text"}, "safety_identifier": "u",
    "seed": 7, "service_tier": "auto", "stop": ["never"], "store": False, "temperature": 0.5,
    "tool_choice": None, "tools": None, "top_p": 0.9, "user": "u", "verbosity": None,
    "web_search_options": None,
}  # fmt: skip


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def scripted(served: Any) -> Iterator[Any]:
    with served(ScriptedEngine({"pilot": "She lives here."}, tokenizer=byte_tokenizer())) as server:
        yield server


# --- fields ---------------------------------------------------------------------------------------


def test_every_field_of_a_chat_is_taken(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="speaker", messages=USER, **EVERY_FIELD)
    assert reply.choices[0].message.content == SENTENCE


def test_a_field_that_is_null_is_a_field_left_out(server: Any) -> None:
    plain = {"model": "speaker", "messages": USER}
    nothing = dict.fromkeys([*EVERY_FIELD, "n", "stream", "stream_options", "max_tokens"], None)
    server.ask("POST", "/v1/chat/completions", plain)
    status, _, page = server.ask("POST", "/v1/chat/completions", plain | nothing)
    assert (status, orjson.loads(page)["choices"][0]["message"]["content"]) == (200, SENTENCE)
    assert server.engine.plans[-1].request == server.engine.plans[-2].request
    of_text = {"model": "speaker", "prompt": "Say"}
    none = dict.fromkeys(["suffix", "best_of", "echo", "logprobs", "n", "stop", "stream"], None)
    server.ask("POST", "/v1/completions", of_text)
    assert server.ask("POST", "/v1/completions", of_text | none)[0] == 200
    assert server.engine.plans[-1].request == server.engine.plans[-2].request


def test_the_newer_name_of_the_bound_is_the_bound(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="speaker", messages=USER, max_completion_tokens=2)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (
        "Paris is", "length",
    )  # fmt: skip


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_content_may_be_a_list_of_parts_in_every_role(
    scripted: Any, client: openai.OpenAI, role: str
) -> None:
    parts = [{"type": "text", "text": "Where does "}, {"type": "text", "text": "the pilot live?"}]

    def count(content: Any) -> Any:
        body = {"model": "scripted", "messages": [{"role": role, "content": content}, *USER],
                "max_tokens": 1}  # fmt: skip
        _, _, page = scripted.ask("POST", "/v1/chat/completions", body)
        return orjson.loads(page)["usage"]["prompt_tokens"]

    assert count(parts) == count("Where does the pilot live?")


def test_a_reply_can_be_sent_back_as_it_came(scripted: Any) -> None:
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none") as client:
        first = client.chat.completions.create(model="scripted", messages=USER, max_tokens=3)
        said: Any = first.choices[0].message.model_dump()
        assert said["tool_calls"] is None
        again = client.chat.completions.create(
            model="scripted", messages=[*USER, said, *USER], max_tokens=3
        )
        bare: Any = {"role": "assistant", "content": said["content"]}
        plain = client.chat.completions.create(
            model="scripted", messages=[*USER, bare, *USER], max_tokens=3
        )
    assert again.usage is not None
    assert plain.usage is not None
    assert again.usage.prompt_tokens == plain.usage.prompt_tokens


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"include_usage": True},
        {"include_usage": True, "include_obfuscation": False},
        {"include_usage": True, "include_obfuscation": True, "continuous_usage_stats": True},
    ],
)
def test_usage_comes_last_whatever_else_is_asked_of_the_stream(
    client: openai.OpenAI, options: Any
) -> None:
    for n in (1, 2):
        stream = client.chat.completions.create(
            model="speaker", messages=USER, stream=True, stream_options=options, n=n
        )
        *chunks, last = stream
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.completion_tokens == 5 * n
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_without_include_usage_no_chunk_has_any(client: openai.OpenAI) -> None:
    options: Any
    for options in ({}, {"include_usage": False}, {"include_obfuscation": False}):
        stream = client.chat.completions.create(
            model="speaker", messages=USER, stream=True, stream_options=options
        )
        assert all(chunk.choices and chunk.usage is None for chunk in stream)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"include_usage": 1}, "stream_options.include_usage"),
        ({"include_obfuscation": "yes"}, "stream_options.include_obfuscation"),
        ({"continuous_usage_stats": 0}, "stream_options.continuous_usage_stats"),
        (True, "stream_options"),
    ],
)
def test_malformed_options_of_a_stream_are_told(server: Any, options: Any, param: str) -> None:
    body = {"model": "speaker", "messages": USER, "stream": True, "stream_options": options}
    status, _, page = server.ask("POST", "/v1/chat/completions", body)
    assert (status, orjson.loads(page)["error"]["param"]) == (400, param)


def test_the_clients_own_gathering_of_a_stream_finds_a_whole_reply(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="speaker", messages=USER, n=2, logprobs=True, top_logprobs=1
    ) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.done"} <= kinds
    assert [choice.message.content for choice in whole.choices] == [SENTENCE, SENTENCE]
    assert [choice.finish_reason for choice in whole.choices] == ["stop", "stop"]
    assert whole.choices[1].logprobs is not None
    assert [item.token for item in whole.choices[1].logprobs.content or []] == WORDS


# --- log-probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [None, 0, 2])
def test_a_chats_log_probabilities_have_openais_shape(client: openai.OpenAI, n: int | None) -> None:
    more: Any = {} if n is None else {"top_logprobs": n}
    reply = client.chat.completions.create(model="speaker", messages=USER, logprobs=True, **more)
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.refusal is None
    assert [item.token for item in told.content or []] == WORDS
    for item in told.content or []:
        assert bytes(item.bytes or []) == item.token.encode()
        assert len(item.top_logprobs) == (n or 0)
    assert (
        client.chat.completions.create(model="speaker", messages=USER).choices[0].logprobs is None
    )


def test_what_lm_eval_reads_of_a_batch_of_token_ids_is_there(scripted: Any) -> None:
    """As its ``local-completions`` parses it: choices by index, all tokens and one more."""
    texts = ["The pilot lives here.", "The pilot", "A pilot: She lives"]
    lengths = [4, 3, 9]
    body = {"model": "scripted", "prompt": [[*text.encode()] for text in texts], "temperature": 0,
            "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}  # fmt: skip
    _, _, page = scripted.ask("POST", "/v1/completions", body)
    choices = sorted(orjson.loads(page)["choices"], key=itemgetter("index"))
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    for text, length, choice in zip(texts, lengths, choices, strict=True):
        told = choice["logprobs"]
        assert len(told["tokens"]) == len(told["token_logprobs"]) == len(text) + 1
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        assert "".join(told["tokens"][:-1]) == text
        tokens, tops = told["token_logprobs"][length:-1], told["top_logprobs"][length:-1]
        assert all(logp <= max(top.values()) for logp, top in zip(tokens, tops, strict=True))
        assert [told["text_offset"][n] for n in range(len(text))] == [*range(len(text))]


# --- errors, retries, ids -------------------------------------------------------------------------


def test_a_busy_server_is_asked_again_and_answers(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_away: list[Any] = []
    stream = server.engine.stream

    async def once(plan: Any) -> Any:
        if not turned_away:
            turned_away.append(plan)
            raise BusyError("all are busy", retry_after_s=0.01)
        async for delta in stream(plan):
            yield delta

    monkeypatch.setattr(server.engine, "stream", once)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2) as client:
        reply = client.chat.completions.create(model="speaker", messages=USER)
    assert reply.choices[0].message.content == SENTENCE
    assert len(turned_away) == 1


def test_what_broke_is_not_asked_for_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def broken(plan: Any) -> Any:
        asked.append(plan)
        if plan is not None:
            raise RuntimeError("secret words")
        yield

    monkeypatch.setattr(server.engine, "stream", broken)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2)
    with client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="speaker", messages=USER)
    assert len(asked) == 1
    assert "secret" not in str(caught.value)
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("more", "kind", "param", "code"),
    [
        ({"messages": []}, openai.BadRequestError, "messages", "empty_array"),
        ({"n": 17}, openai.BadRequestError, "n", "invalid_value"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"top_logprobs": 2}, openai.BadRequestError, "top_logprobs", "invalid_value"),
        ({"stream_options": {}}, openai.BadRequestError, "stream_options", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, openai.BadRequestError,
         "max_completion_tokens", "invalid_value"),
        ({"model": "nobody"}, openai.NotFoundError, "model", "model_not_found"),
        ({"extra_body": {"elision": {"tenant": "b"}}}, openai.PermissionDeniedError, None,
         "permission_denied"),
    ],
)  # fmt: skip
def test_an_error_is_the_clients_own_class_with_its_facts(
    client: openai.OpenAI, more: dict[str, Any], kind: Any, param: str | None, code: str
) -> None:
    asked: Any = {"model": "speaker", "messages": USER} | more
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**asked)
    assert type(caught.value) is kind
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.request_id


def test_a_body_that_is_too_large_is_a_status_of_its_own(served: Any) -> None:
    with served(body_limit_bytes=100) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.APIStatusError) as caught:
            client.embeddings.create(model="bag", input="x" * 200)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


def test_every_answer_has_the_id_that_the_client_shows(client: openai.OpenAI) -> None:
    more = {"x-request-id": "mine-1"}
    whole = client.chat.completions.create(model="speaker", messages=USER, extra_headers=more)
    assert whole._request_id == "mine-1"
    raw = client.chat.completions.with_raw_response.create(
        model="speaker", messages=USER, stream=True
    )
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["cache-control"] == "no-cache"
    assert raw.headers["x-accel-buffering"] == "no"
