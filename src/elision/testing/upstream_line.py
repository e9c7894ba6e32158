"""HTTP/1.1 as a test server needs it: every byte in its hands, every hang-up noticed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

import orjson

Handler: TypeAlias = "Callable[[Exchange], Awaitable[None]]"

_REASONS = {200: "OK", 307: "Temporary Redirect", 404: "Not Found", 429: "Too Many Requests"}


class Exchange:
    """A request that arrived, and the means to answer it.

    Attributes:
        method: HTTP method.
        path: Its target, query included.
        headers: By name in lower case.
        body: What was posted.
    """

    def __init__(self, line: Line, method: str, path: str, headers: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = b""
        self._line = line

    @property
    def json(self) -> Any:
        """The body, read; nothing of an empty one."""
        return orjson.loads(self.body) if self.body else None

    async def start(
        self, status: int = 200, kind: str = "text/event-stream", **headers: str
    ) -> None:
        """Begin an answer that comes in pieces; ``_`` in a header's name is ``-``."""
        await self._line.write(_head(status, kind, headers) + b"transfer-encoding: chunked\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer."""
        if data:
            await self._line.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """End an answer that came in pieces."""
        await self._line.write(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Send bytes that no protocol looks at."""
        await self._line.write(data)

    async def answer(self, status: int, value: object, **headers: str) -> None:
        """Answer with *value* as JSON, or as it is if it is bytes."""
        data = value if isinstance(value, bytes) else orjson.dumps(value)
        head = _head(status, "application/json", headers)
        await self._line.write(head + b"content-length: %d\r\n\r\n%b" % (len(data), data))

    def hang_up(self) -> None:
        """Close the connection once what was written has left."""
        self._line.transport.close()

    def reset(self) -> None:
        """Break the connection off."""
        self._line.transport.abort()


def _head(status: int, kind: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}", f"content-type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in lines).encode()


class Line(asyncio.Protocol):
    """One connection: reads requests, has each answered, ends the answer when the client leaves.

    Args:
        handler: Answers one request.
        lines: Where it enters itself while it is open.
    """

    transport: asyncio.Transport

    def __init__(self, handler: Handler, lines: set[Line]) -> None:
        self._handler = handler
        self._lines = lines
        self._buffer = b""
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self._lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._lines.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        self._next()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Send *data*, once the client has read what went before."""
        await self._writable.wait()
        self.transport.write(data)

    def _next(self) -> None:
        if self._answering is None and (exchange := self._request()) is not None:
            self._answering = asyncio.ensure_future(self._handler(exchange))
            self._answering.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering = None
        if task.cancelled() or self.transport.is_closing():
            return
        if (error := task.exception()) is not None:
            self.transport.abort()
            raise error
        self._next()

    def _request(self) -> Exchange | None:
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if not gap:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        exchange = Exchange(self, method, path, {n.lower(): v.strip() for n, _, v in pairs})
        length = int(exchange.headers.get("content-length", 0))
        if len(rest) < length:
            return None
        exchange.body, self._buffer = rest[:length], rest[length:]
        return exchange
