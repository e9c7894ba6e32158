"""The request bodies that other people's clients send, as recorded: all are accepted.

The answers are held against openai-python's types, strictly: it reads leniently itself, and so
would not notice what is missing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from elision.guards.phrases.normal import N
from elision.middleware.engines.local import LocalEngine
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

in_one_loop = pytest.mark.asyncio(loop_scope="module")
RECORDINGS = sorted((Path(__file__).parents[1] / "data" / "clients").glob("*.json"))
ASKING = [file for file in RECORDINGS if file.stem != "lm-eval"]  # which wants to hear its prompts


class Tokens(BaseModel):
    """What lm-eval reads of ``/tokenize``."""

    tokens: list[int]


class PieceChoice(CompletionChoice):
    """A streamed one has null until it ends, as in OpenAI's answers if not its types."""

    finish_reason: str | None


class Piece(Completion):
    """One event of a streamed completion."""

    choices: list[PieceChoice]


WHOLE: Mapping[str, TypeAdapter[Any]] = {
    "/v1/chat/completions": TypeAdapter(ChatCompletion),
    "/v1/completions": TypeAdapter(Completion),
    "/v1/responses": TypeAdapter(Response),
    "/tokenize": TypeAdapter(Tokens),
}
PIECES: Mapping[str, TypeAdapter[Any]] = {
    "/v1/chat/completions": TypeAdapter(ChatCompletionChunk),
    "/v1/completions": TypeAdapter(Piece),
    "/v1/responses": TypeAdapter(ResponseStreamEvent),
}


@pytest.fixture(scope="module")
def apps(in_process: Any) -> Iterator[dict[str, Any]]:
    """Return applications by what stands behind: a harbour's model, and a tiny local one."""
    model, settings = tiny_model(vocab_size=259, eos=257, seed=3), Settings(threads=1)
    tiny = LocalEngine.wrap(model, byte_tokenizer(), settings=settings, name="tiny")
    with in_process(None) as harbour, in_process(tiny) as local:
        yield {"harbour": harbour, "tiny": local}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(apps: dict[str, Any]) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    async with AsyncExitStack() as stack:
        found = {}
        for name, app in apps.items():
            await stack.enter_async_context(app.router.lifespan_context(app))
            asking = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1"
            )
            found[name] = await stack.enter_async_context(asking)
        yield found


def requests_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["requests"]
    return found


def read(path: str, body: Mapping[str, Any], page: str) -> list[Any]:
    """Return the answer's objects, each as openai-python types it."""
    if body.get("echo"):
        page = _without_nulls(page)
    if not body.get("stream"):
        return [WHOLE[path].validate_json(page)]
    events = [line[6:] for line in page.splitlines() if line.startswith("data: ")]
    if path != "/v1/responses":
        assert events.pop() == "[DONE]"
    return [PIECES[path].validate_json(event) for event in events]


def _without_nulls(page: str) -> str:
    """Leave a prompt's first token out: it has null, as in OpenAI's answers if not its types."""
    found = json.loads(page)
    for choice in found["choices"]:
        for name in ("token_logprobs", "top_logprobs"):
            assert choice["logprobs"][name].pop(0) is None
    return json.dumps(found)


@in_one_loop
@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
async def test_every_recorded_body_is_accepted_and_its_answer_is_typed(
    gateways: dict[str, httpx2.AsyncClient], file: Path
) -> None:
    kept, gateway = "resp_none", gateways["tiny" if file.stem == "lm-eval" else "harbour"]
    for request in requests_of(file):
        path, body = (
            request["path"],
            json.loads(json.dumps(request["body"]).replace("resp_0", kept)),
        )
        answer = await gateway.post(path, json=body)
        assert answer.status_code == 200, (path, body, answer.text)
        objects = read(path, body, answer.text)
        assert objects
        if isinstance(objects[0], Response):
            kept = objects[0].id


@in_one_loop
@pytest.mark.parametrize("file", ASKING, ids=lambda file: file.stem)
async def test_whatever_was_asked_no_answer_holds_what_is_registered(
    gateways: dict[str, httpx2.AsyncClient], file: Path
) -> None:
    pages = ""
    for request in requests_of(file):
        text = json.dumps(request["body"])
        body = json.loads(text.replace("When is high water at Roscoff", "Where does she live"))
        body.pop("previous_response_id", None)
        answer = await gateways["harbour"].post(request["path"], json=body)
        assert answer.status_code == 200
        pages += answer.text
        said = "".join(map(_said, read(request["path"], body, answer.text)))
        assert N("Marlowe Street") not in N(said + answer.text)
    assert "[redacted]" in pages  # it was said
    assert "content_filter" in pages  # and called with


def _said(piece: Any) -> str:
    """Return what a piece of a stream adds to the reply, text and arguments alike."""
    if isinstance(piece, ChatCompletionChunk):
        deltas = [choice.delta for choice in piece.choices]
        calls = [call.function for one in deltas for call in one.tool_calls or ()]
        texts = [one.content for one in deltas] + [call.arguments for call in calls if call]
        return "".join(text or "" for text in texts)
    delta = getattr(piece, "delta", "")
    return delta if isinstance(delta, str) else ""


def test_the_clients_are_those_that_are_run() -> None:
    names = {json.loads(file.read_text(encoding="utf-8"))["client"] for file in RECORDINGS}
    assert names >= {"openai", "openai-agents", "pydantic-ai", "smolagents", "lm-eval"}
    assert names >= {"llama-index-openai-like", "langchain-openai"}
    assert sum(len(requests_of(file)) for file in RECORDINGS) > 80
