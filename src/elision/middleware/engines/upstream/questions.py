"""Short questions to an upstream, answered with JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, TypeAlias

import aiohttp
import orjson

from elision.errors import UpstreamError
from elision.middleware.engines.upstream.answers import beginning, from_now
from elision.middleware.engines.upstream.probing import Ask

Answer: TypeAlias = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Lends the answer to method, route and deadline; takes ``body`` and ``retries`` too."""

_LIMIT_BYTES: Final = 8_000_000
_PROBE_S: Final = 10.0


async def model_ids(answer: Answer, timeout_s: float | None) -> tuple[str, ...]:
    """Return the ids in the upstream's list of models.

    Raises:
        UpstreamError: If it does not answer with one.
        ElisionError: If it refuses.
    """
    deadline = from_now(timeout_s)
    async with answer("GET", "models", deadline) as response:
        body = await beginning(response, _LIMIT_BYTES, deadline)
    try:
        return tuple(str(model["id"]) for model in orjson.loads(body)["data"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        failure = UpstreamError(f"the upstream's list of models, {len(body)} bytes, is none")
    raise failure


def asker(answer: Answer) -> Ask:
    """Return what asks a probe's questions: each once, within five seconds.

    An answer that is no JSON is None.
    """
    return partial(_asked, answer)


async def _asked(answer: Answer, method: str, route: str, body: Mapping[str, Any] | None) -> Any:
    deadline = from_now(_PROBE_S)
    data = None if body is None else orjson.dumps(body)
    async with answer(method, route, deadline, body=data, retries=0) as response:
        said = await beginning(response, _LIMIT_BYTES, deadline)
    try:
        return orjson.loads(said)
    except orjson.JSONDecodeError:
        return None
