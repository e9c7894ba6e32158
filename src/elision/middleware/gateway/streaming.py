"""Server-sent events, and work that ends when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
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
    async with _Presence(receive):
        return await work


class _Presence:
    """A stretch of a task that is cancelled when the client leaves. Lives as long as the stretch.

    As `asyncio.timeout` does it: the task that works is the request's own, so that each piece of
    a reply costs one wake-up, and a cancellation from elsewhere stays what it is.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._n_cancelled = task.cancelling()
        self._watcher = asyncio.ensure_future(self._watch())
        self._watcher.add_done_callback(self._leave)

    async def __aexit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        watcher, task = self._watcher, self._task
        # Its frames lead back here: without this every request would be a cycle.
        self._watcher = self._task = None
        assert watcher is not None
        assert task is not None
        watcher.remove_done_callback(self._leave)
        watcher.cancel()
        await asyncio.wait({watcher})
        if not self._gone:
            return
        ours = task.uncancel() <= self._n_cancelled
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientDisconnect from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _leave(self, watcher: asyncio.Future[None]) -> None:
        if not watcher.cancelled():
            watcher.exception()  # a channel that breaks has no client at its end
            if self._task is not None:  # else the work was done first
                self._gone = True
                self._task.cancel()


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
        self._starting = asyncio.Lock()  # heart and source must not both open the stream
        self._open = False
        self._wrote = 0.0
        self._heart: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None

    def head(self) -> list[tuple[bytes, bytes]]:
        """Return the headers, asked for when the stream opens."""
        return self.raw_headers

    def leaves(self) -> bool:
        """Take note that a piece leaves; return whether it is known to be the last."""
        return False

    def told(self, exc: Exception) -> bytes:
        """Return what is sent of an error on the way."""
        return b"data: " + failure_of(exc).body() + b"\n\n"

    def _last_words(self, exc: Exception) -> bytes:
        """Return what is sent of *exc*, whatever `told` meets: no stream ends without a word."""
        try:
            return self.told(exc)
        except Exception:
            return EventStream.told(self, exc)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until its end or the client's.

        Raises:
            ElisionError: If the source fails before anything was sent.
            ClientDisconnect: If the client left.
        """
        async with aclosing(self._source):  # type: ignore[type-var] # closed if it never begins, too
            await until_gone(receive, self._serve(scope, send))

    async def _serve(self, scope: Scope, send: Send) -> None:
        loop, last = asyncio.get_running_loop(), b""
        self._wrote = loop.time()
        self._heart = loop.call_later(self._heartbeat_s, self._listen, loop, send)
        try:
            async for data in self._source:
                if self.leaves():  # then the end goes with it: a write costs more than a chunk
                    last = data
                    break
                if not self._open:
                    await self._start(send)
                await send({"type": "http.response.body", "body": data, "more_body": True})
                self._wrote = loop.time()
        except Exception as exc:
            if not self._open:
                raise
            scope["state"]["failure"] = exc
            await self._write(send, self._last_words(exc), loop)
        finally:
            await self._still()
        if not self._open:
            await self._start(send)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _write(self, send: Send, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        if not self._open:
            await self._start(send)
        # Heart and source may both be waiting to send; what each sends is whole.
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._wrote = loop.time()

    async def _start(self, send: Send) -> None:
        async with self._starting:
            if not self._open:
                head = {"type": "http.response.start", "headers": self.head()}
                await send(head | {"status": self.status_code})
                self._open = True

    def _listen(self, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        """Send a comment if the stream has been silent; a timer, because most never are."""
        wait_s = self._wrote + self._heartbeat_s - loop.time()
        if wait_s <= 0:
            wait_s = self._heartbeat_s
            if self._beating is None or self._beating.done():
                self._beating = loop.create_task(self._write(send, _COMMENT, loop))
        self._heart = loop.call_later(wait_s, self._listen, loop, send)

    async def _still(self) -> None:
        assert self._heart is not None
        self._heart.cancel()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
