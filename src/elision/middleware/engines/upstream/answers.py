"""An upstream's answer: asked for until one begins, read to its end or as far as it matters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from elision.errors import ElisionError, UpstreamError
from elision.middleware.engines.upstream.addresses import redirected
from elision.middleware.engines.upstream.errors import (
    is_unconnected,
    of_status,
    retry_after_s,
)
from elision.middleware.engines.upstream.pool import Pool, by

WHOLE_LIMIT_BYTES: Final = 64_000_000
"""Longest answer that is taken in whole; our own bound."""

_ERROR_BODY_BYTES = 64_000
_ERROR_BODY_S = 5.0
_GRACE_S = 0.05
_LONGEST_WAIT_S = 5.0
_FIRST_WAIT_S = 0.25
_N_REDIRECTS = 3
_MOVED = (307, 308)
"""Redirects that keep method and body; the others would turn a question into something else."""
_AGAIN = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One exchange, described: what is sent, and how often it may be tried.

    Attributes:
        method: HTTP method.
        url: Full address.
        headers: Sent as they are; the key is among them, so they are not shown.
        body: What to post.
        model: What a 404 may mean does not exist.
        deadline: When an answer must have begun, on the running loop's clock.
        retries: New tries while nothing has been answered: where no connection came about, and
            where the upstream says that it is busy (429, 503) and not for long.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    model: str | None = None
    deadline: float | None = None
    retries: int = 0


@asynccontextmanager
async def answered(pool: Pool, asked: Asked) -> AsyncIterator[aiohttp.ClientResponse]:
    """Lend the upstream's answer, if it is a good one.

    The waits between tries double from a quarter of a second, each drawn between half of it and
    all; one that ``retry-after`` names is kept, with up to half more, if it is at most five
    seconds. Redirects (307, 308) are followed on the same host only, three at most.

    Raises:
        ElisionError: What its refusal means, or that there is no connection; see `of_status`.
    """
    async with AsyncExitStack() as stack:
        yield await _begun(stack, pool, asked)


async def beginning(response: aiohttp.ClientResponse, limit: int, deadline: float | None) -> bytes:
    """Return the first *limit* bytes of an answer, or a little more.

    Raises:
        UpstreamError: If it breaks off, or is late.
    """
    body = bytearray()
    while len(body) < limit and (chunk := await by(deadline, response.content.readany())):
        body += chunk
    return bytes(body)


async def whole(response: aiohttp.ClientResponse, deadline: float | None) -> bytes:
    """Return all of an answer.

    Raises:
        UpstreamError: If it breaks off, is late, or exceeds `WHOLE_LIMIT_BYTES`.
    """
    body = await beginning(response, WHOLE_LIMIT_BYTES, deadline)
    if len(body) >= WHOLE_LIMIT_BYTES:
        raise UpstreamError(f"the upstream's answer exceeds {WHOLE_LIMIT_BYTES} bytes")
    return body


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read the few bytes after the last event, so that the connection can serve again."""
    with suppress(UpstreamError):
        await beginning(response, _ERROR_BODY_BYTES, from_now(_GRACE_S))


def from_now(seconds: float | None) -> float | None:
    """Return that time on the running loop's clock; None stays None."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


async def _begun(stack: AsyncExitStack, pool: Pool, asked: Asked) -> aiohttp.ClientResponse:
    """Return the first good answer."""
    tries = 0
    while True:
        named_s = None
        try:
            response = await _followed(stack, pool, asked)
        except UpstreamError as exc:
            failure: ElisionError = exc
            again = is_unconnected(exc)
        else:
            if response.status == 200:
                return response
            failure = await _refusal(response, asked)
            again = response.status in _AGAIN and failure.retryable
            named_s = retry_after_s(response.headers)
        wait_s = _wait_s(named_s, tries, asked) if again else None
        if wait_s is None:
            raise failure
        await stack.aclose()
        await asyncio.sleep(wait_s)
        tries += 1


async def _followed(stack: AsyncExitStack, pool: Pool, asked: Asked) -> aiohttp.ClientResponse:
    """Return the answer at the end of all redirects."""
    url = asked.url
    for _ in range(_N_REDIRECTS + 1):
        sent = pool.ask(
            asked.method, url, headers=asked.headers, body=asked.body, deadline=asked.deadline
        )
        response = await stack.enter_async_context(sent)
        location = response.headers.get("location")
        if response.status not in _MOVED or not location:
            return response
        url = redirected(url, location)
        await stack.aclose()
    raise UpstreamError(f"the upstream redirects more than {_N_REDIRECTS} times")


async def _refusal(response: aiohttp.ClientResponse, asked: Asked) -> ElisionError:
    """Return the error that an answer means; what cannot be read of it adds nothing."""
    said = b""
    with suppress(UpstreamError):
        said = await beginning(response, _ERROR_BODY_BYTES, from_now(_ERROR_BODY_S))
    return of_status(response.status, response.headers, said, model=asked.model)


def _wait_s(named_s: float | None, tries: int, asked: Asked) -> float | None:
    """Return how long to wait before the next try; None: there is none."""
    if tries >= asked.retries:
        return None
    wait_s = _FIRST_WAIT_S * 2**tries if named_s is None else named_s
    if wait_s > _LONGEST_WAIT_S:
        return None
    # A wait that the upstream names is kept; both are spread, or all would come back at once.
    least = 0.5 if named_s is None else 1.0
    wait_s *= random.uniform(least, least + 0.5)  # noqa: S311 - no secret
    now = asyncio.get_running_loop().time()
    return None if asked.deadline is not None and now + wait_s >= asked.deadline else wait_s
