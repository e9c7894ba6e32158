"""Which tokens are likeliest next, as the wire asks and answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import aiohttp
import orjson

from elision.errors import NotFoundError, UpstreamError
from elision.middleware.engines.upstream.answers import beginning, from_now

Answer: TypeAlias = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]

_LONGEST_BYTES: Final = 1_000_000
_TOKENS_S: Final = 5.0

_NOWHERE: Final = -9000.0
"""vLLM writes -9999 where JSON has no minus infinity."""

_NAME: Final = "token_id:"


async def ranking_of(
    answer: Answer, ids: Sequence[int], k: int, *, model: str, generate: bool
) -> tuple[tuple[int, float], ...]:
    """Return the *k* likeliest tokens behind *ids*, likeliest first, with log-probabilities.

    Args:
        answer: Lends the upstream's answer to method, route, deadline and body.
        ids: The sequence.
        k: Tokens wanted.
        model: The upstream's name for its model.
        generate: Whether vLLM's route from ids to ids is open: it is the faster one as soon as
            several ask at a time.

    Raises:
        UpstreamError: If they are not told by their numbers.
    """
    route, body = "completions", completion_body(ids, k, model=model)
    if generate:
        route, body = "/inference/v1/generate", generate_body(ids, k, model=model)
    async with answer("POST", route, None, body=body) as response:
        return read_ranking(await beginning(response, _LONGEST_BYTES, None))


async def tokens_of(answer: Answer, text: str, *, model: str) -> tuple[int, ...] | None:
    """Return how an upstream splits *text*; None if it does not tell.

    ``/tokenize`` is asked with the names that vLLM and llama-server have for the text.
    """
    body, deadline = {"model": model, "prompt": text, "content": text}, from_now(_TOKENS_S)
    try:
        async with answer("POST", "/tokenize", deadline, body=orjson.dumps(body)) as response:
            return read_tokens(await beginning(response, _LONGEST_BYTES, deadline))
    except NotFoundError:
        return None


def generate_body(ids: Sequence[int], k: int, *, model: str) -> bytes:
    """Return what vLLM's ``/inference/v1/generate`` is asked for the *k* likeliest behind *ids*.

    The end of a text is a token like any other here.
    """
    sampling = {"max_tokens": 1, "temperature": 0, "logprobs": k, "ignore_eos": True}
    sampling["detokenize"] = False
    return orjson.dumps({"model": model, "token_ids": [*ids], "sampling_params": sampling})


def completion_body(ids: Sequence[int], k: int, *, model: str) -> bytes:
    """Return what ``/v1/completions`` is asked for the *k* likeliest behind *ids*.

    Tokens are wanted by number: their texts tell them apart no more where they are parts of
    characters.
    """
    body = {"model": model, "prompt": [*ids], "max_tokens": 1, "temperature": 0, "logprobs": k}
    return orjson.dumps(body | {"return_tokens_as_token_ids": True, "ignore_eos": True})


def read_ranking(body: bytes) -> tuple[tuple[int, float], ...]:
    """Return the tokens of an answer's first position, likeliest first, with log-probabilities.

    Reads vLLM's ``token_id``, llama-server's ``id`` and names like ``token_id:17``.

    Raises:
        UpstreamError: If there is none, or one has no number.
    """
    try:
        logprobs = orjson.loads(body)["choices"][0]["logprobs"]
        found = dict(_entries(logprobs))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):  # of JSON, another
        found = {}
    kept = [(token, logp) for token, logp in found.items() if _NOWHERE < logp <= 1e-3]
    if not kept:
        raise UpstreamError("the upstream told no likeliest tokens by their numbers")
    return tuple(sorted(kept, key=lambda pair: -pair[1]))


def _entries(logprobs: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    if "top_logprobs" in logprobs:
        for name, logp in logprobs["top_logprobs"][0].items():
            yield _number(name), float(logp)
        return
    entry = logprobs["content"][0]
    for one in (*entry["top_logprobs"], entry):
        yield int(one["token_id"] if "token_id" in one else one["id"]), float(one["logprob"])


def _number(name: str) -> int:
    if not name.startswith(_NAME):
        raise ValueError("a token is told by its text")
    return int(name.removeprefix(_NAME))


def read_tokens(body: bytes) -> tuple[int, ...] | None:
    """Return the ids that ``/tokenize`` told; None if it told none."""
    try:
        ids = orjson.loads(body)["tokens"]
        return tuple(map(int, ids)) if isinstance(ids, list) else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
