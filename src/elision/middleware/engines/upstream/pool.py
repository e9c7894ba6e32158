"""Connections to an upstream: one pool for each event loop that asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
from aiohttp.http import HttpProcessingError
from aiohttp.resolver import ThreadedResolver

from elision.errors import EngineError
from elision.middleware.engines.upstream.addresses import PublicResolver
from elision.middleware.engines.upstream.errors import of_transport

T = TypeVar("T")

_KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s after which uvicorn drops an idle connection: a POST is never sent into a
connection that the upstream is just closing."""


class Pool:
    """Keeps connections alive between requests and ends them all at once. Lives until `aclose`.

    Follows no redirect, keeps no cookie and reads no proxy setting, so that what one request says
    goes to one host and reaches no other request.

    Args:
        connect_s: Longest wait for a connection in seconds.
        silence_s: Longest wait for a further byte in seconds.
        private: Whether a host's name may lead to a private address.
    """

    def __init__(self, *, connect_s: float, silence_s: float, private: bool = False) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=silence_s)
        self._private = private
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._closed = False

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and lend its answer, whatever its status.

        On the way out the connection is closed at once, unless the answer was read to its end.

        Args:
            method: HTTP method.
            url: Full address.
            headers: Sent as they are.
            body: What to post.
            deadline: When the answer must have begun, on the running loop's clock; None waits
                for as long as the upstream may be silent.

        Raises:
            EngineError: If the pool is closed.
            UpstreamTimeoutError: If the answer does not begin in time.
            UpstreamError: If there is no connection, or it breaks.
        """
        line = await self._line()
        asked = line.session.request(method, url, data=body, headers=headers, allow_redirects=False)
        response = await by(deadline, asked)
        line.answers.add(response)
        try:
            yield response
        finally:
            line.answers.discard(response)
            response.close()

    async def aclose(self) -> None:
        """End every request, close every connection. Idempotent."""
        self._closed = True
        while self._lines:
            loop, line = self._lines.popitem()
            await line.close(loop)

    async def leave(self) -> None:
        """End every request of the running event loop, close its connections."""
        loop = asyncio.get_running_loop()
        if (line := self._lines.pop(loop, None)) is not None:
            await line.close(loop)

    async def _line(self) -> _Line:
        if self._closed:
            raise EngineError("the engine is closed")
        loop = asyncio.get_running_loop()
        if loop not in self._lines:
            self._lines[loop] = _Line(self._timeout, private=self._private)
            for ended in [other for other in self._lines if other.is_closed()]:
                await self._lines.pop(ended).close(ended)
        return self._lines[loop]


class _Line:
    """One event loop's session, and the answers that are being read on it."""

    def __init__(self, timeout: aiohttp.ClientTimeout, *, private: bool) -> None:
        self.answers: set[aiohttp.ClientResponse] = set()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_KEEP_ALIVE_S,
                resolver=ThreadedResolver() if private else PublicResolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
        )

    async def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close it on its own *loop*, if that still runs."""
        if loop is asyncio.get_running_loop() or not loop.is_running():
            await self._close()
        else:
            closing = asyncio.run_coroutine_threadsafe(self._close(), loop)
            await asyncio.wrap_future(closing)

    async def _close(self) -> None:
        # A session that closes forgets its readers, who would wait for ever; an answer wakes them.
        for response in tuple(self.answers):
            response.close()
        await self.session.close()


async def by(deadline: float | None, answer: Awaitable[T]) -> T:
    """Return what *answer* brings by *deadline*, a time on the running loop's clock.

    Raises:
        UpstreamTimeoutError: If it comes too late.
        UpstreamError: If the connection fails.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await answer
    except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
        failure = of_transport(exc)
    # Raised out here so that what the HTTP parser quoted does not hang on as its context.
    raise failure
