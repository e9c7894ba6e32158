"""Server-sent events, and work that ends when its client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from elision.middleware.gateway.errors import failure_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from elision.contract import Delta
    from elision.middleware.rendering import Chunks

T = TypeVar("T")

HEARTBEAT_S = 15.0
"""Longest silence on an open stream; proxies tend to cut at thirty seconds or sixty."""

DONE = b"data: [DONE]\n\n"
_COMMENT = b": keep-alive\n\n"


def event(chunk: object) -> bytes:
    """Return one event. JSON writes line ends as escapes, so none can end the event early."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def events(deltas: AsyncIterator[Delta], chunks: Chunks) -> AsyncIterator[bytes]:
    """Yield a reply's events, those of one delta together; closes *deltas* with itself."""
    async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
        async for delta in source:
            if data := b"".join(map(event, chunks.of(delta))):
                yield data
    yield b"".join(map(event, chunks.tail())) + DONE


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do *work* unless the client leaves first; either way nothing of it is left running.

    Args:
        receive: The request's channel, its body read to the end.
        work: Cancelled when the client leaves.

    Raises:
        ClientDisconnect: If the client left.
    """
    worker = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise ClientDisconnect
    finally:
        worker.cancel()
        watcher.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events.

    The status line waits for the first event, so that an error before it is an ordinary HTTP
    error; after `heartbeat_s` of silence the stream opens all the same. An error on the way is
    told as an event, and no ``[DONE]`` follows it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make a response.

        Args:
            source: Whole events, one piece per write; closed when the stream ends.
            heartbeat_s: Silence after which a comment is sent.
            headers: Further ones.
        """
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers},
            media_type=self.media_type,
        )
        del self.headers["content-length"]
        self._source = source
        self._heartbeat_s = heartbeat_s
        self._writing = asyncio.Lock()  # heart and source must not both open the stream
        self._open = False
        self._wrote = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until its end or the client's.

        Raises:
            ElisionError: If the source fails before anything was sent.
            ClientDisconnect: If the client left.
        """
        await until_gone(receive, self._serve(scope, send))

    async def _serve(self, scope: Scope, send: Send) -> None:
        heart = asyncio.ensure_future(self._beat(send))
        try:
            async with aclosing(self._source) as source:  # type: ignore[type-var] # a generator
                async for data in source:
                    await self._write(send, data)
        except Exception as exc:
            if not self._open:
                raise
            scope["state"]["failure"] = exc
            await self._write(send, b"data: " + failure_of(exc).body() + b"\n\n")
        finally:
            heart.cancel()
            with suppress(asyncio.CancelledError):
                await heart
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, data: bytes) -> None:
        async with self._writing:
            if not self._open:
                start = {"type": "http.response.start", "headers": self.raw_headers}
                await send(start | {"status": self.status_code})
                self._open = True
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._wrote = time.monotonic()

    async def _beat(self, send: Send) -> None:
        self._wrote = time.monotonic()
        while True:
            silent_s = time.monotonic() - self._wrote
            if silent_s >= self._heartbeat_s:
                await self._write(send, _COMMENT)
                silent_s = 0.0
            await asyncio.sleep(self._heartbeat_s - silent_s)
