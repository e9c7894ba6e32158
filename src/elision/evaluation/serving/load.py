"""Streams at once against an OpenAI-compatible server, and how many tokens a second come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from elision.errors import EngineError

_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a load goes, and with what.

    Attributes:
        url: The base URL, with ``/v1``.
        key: Bearer key.
        model: As the server calls it, profile included where it is ours.
        extra: Further fields of each body.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


async def tokens_per_s(way: Way, *, n_streams: int, n_tokens: int, temperature: float) -> float:
    """Return tokens per second over *n_streams* replies of *n_tokens* each, asked at once.

    Raises:
        EngineError: If a reply is refused or has another length.
    """
    headers = {"Authorization": f"Bearer {way.key}"} if way.key else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        begun = time.perf_counter()
        asked = (_reply(session, way, n, n_tokens, temperature) for n in range(n_streams))
        counts = await asyncio.gather(*asked)
        took_s = time.perf_counter() - begun
    if set(counts) != {n_tokens}:
        raise EngineError(f"replies of the bench have {sorted(set(counts))} tokens")
    return sum(counts) / took_s


async def _reply(
    session: aiohttp.ClientSession, way: Way, index: int, n_tokens: int, temperature: float
) -> int:
    """Stream one reply to its end; return how many tokens the server counted."""
    asked = f"Tell a long story about {index + 2} ships, the sea and a town that waits for them."
    body = {
        "model": way.model, "messages": [{"role": "user", "content": asked}], "stream": True,
        "stream_options": {"include_usage": True}, "max_tokens": n_tokens, "ignore_eos": True,
        "temperature": temperature, "seed": index, **way.extra,
    }  # fmt: skip
    last = b""
    async with session.post(f"{way.url}/chat/completions", json=body) as response:
        if response.status != 200:
            raise EngineError(f"a reply of the bench was refused with {response.status}")
        async for line in response.content:
            last = line if b'"completion_tokens"' in line else last
    return _n_tokens(last)


def _n_tokens(line: bytes) -> int:
    import orjson

    if not line:
        raise EngineError("a reply of the bench tells no usage")
    usage = orjson.loads(line.removeprefix(b"data: "))["usage"]
    return int(usage["completion_tokens"])
