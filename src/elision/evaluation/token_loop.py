"""What the token loop costs: milliseconds per token, against the same upstream's own stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elision.contract import Plan, Request, Sampling, collect
from elision.errors import ConfigError

if TYPE_CHECKING:
    from elision.contract import Completion, Engine
    from elision.middleware.engines.remote import RemoteEngine

STREAMS: Final = (1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast tokens came.

    Attributes:
        n_streams: Replies written at a time.
        stream_ms: Milliseconds from one token of a reply to its next, as the upstream streams.
        loop_ms: Likewise, decoded token by token from here.
        missing_mass: Largest probability that the loop did not know.
    """

    n_streams: int
    stream_ms: float
    loop_ms: float
    missing_mass: float

    @property
    def ratio(self) -> float:
        """How many times as long the loop takes."""
        return self.loop_ms / self.stream_ms


async def paces(
    engine: RemoteEngine, *, n_tokens: int = 48, streams: Sequence[int] = STREAMS
) -> list[Pace]:
    """Measure *engine* and its loop one after the other, greedy, each warmed up by one reply.

    Args:
        engine: With a tokenizer; stays open.
        n_tokens: Most tokens per reply.
        streams: How many replies at a time.

    Raises:
        ConfigError: If it has no loop.
    """
    loop = await engine.loop()
    if loop is None:
        raise ConfigError(f"{engine.name!r} has no token loop; name its tokenizer")
    for one in (engine, loop):
        await _replies(one, 1, 4)
    found = []
    for n in streams:
        (stream_ms, _), (loop_ms, done) = [await _replies(e, n, n_tokens) for e in (engine, loop)]
        missing = max(one.report["missing_mass"] for one in done)
        found.append(Pace(n_streams=n, stream_ms=stream_ms, loop_ms=loop_ms, missing_mass=missing))
    return found


async def _replies(engine: Engine, n: int, n_tokens: int) -> tuple[float, list[Completion]]:
    """Return milliseconds per token of *n* replies at a time, and the replies."""
    begun = time.perf_counter()
    plans = _plans(n, n_tokens)
    done = await asyncio.gather(*(collect(engine.stream(plan)) for plan in plans))
    took_ms = (time.perf_counter() - begun) * 1e3
    return took_ms / max(one.usage.completion_tokens for one in done), done


def _plans(n: int, n_tokens: int) -> Iterator[Plan]:
    for index in range(n):
        asked = f"Tell me a story about {index + 2} ships and the sea."
        messages = ({"role": "user", "content": asked},)
        sampling = Sampling(temperature=0.0)
        request = Request(messages=messages, max_tokens=n_tokens, sampling=sampling)
        yield Plan(request=request, reuse=True)
