"""A client process: many streams at once, each timed, for as long as it is told.

Run as ``python -m elision.evaluation.proxying.client``: one `Load` per line of standard input as
JSON, one `Seen` per line of standard output.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson
import uvloop

from elision.evaluation.proxying.script import body, says

_LAST = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do.

    Attributes:
        url: Base address, with ``/v1``.
        model: What is asked for.
        n_streams: Callers, each with a connection of its own; one asks, reads, waits, asks again.
        seconds: How long new requests begin.
        think_ms: Mean pause of a caller between two requests, drawn evenly from 0 to twice it.
        n_pieces: Of a whole reply.
        seed: Of the pauses.
    """

    url: str
    model: str
    n_streams: int
    seconds: float
    think_ms: float
    n_pieces: int
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Seen:
    """What came of it.

    Attributes:
        first_ms: From a request's sending to its first byte of text, one per whole reply.
        total_ms: Likewise to its last byte.
        errors: What was no whole reply, by kind.
    """

    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


class _Caller(asyncio.Protocol):
    """A connection, and the reply that is being read from it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._reply: asyncio.Future[bytes] | None = None
        self.first = 0.0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self.open = True

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._pieces, self.first = [], 0.0
        self._reply = self._loop.create_future()
        self._transport.write(request)
        return self._reply

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        if not self.first and (len(self._pieces) > 1 or not data.endswith(b"\r\n\r\n")):
            self.first = time.perf_counter()
        # Not "0" alone: headers may end with it.
        if data == _LAST or data.endswith(b"\r\n" + _LAST) or not self._is_stream():
            self._end()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._transport.close()

    def _is_stream(self) -> bool:
        return b"transfer-encoding: chunked" in self._pieces[0]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._end()

    def _end(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(b"".join(self._pieces))


async def run(load: Load) -> Seen:
    """Put *load* on its server, to its end."""
    seen, draw = Seen(), random.Random(load.seed)  # noqa: S311 -- pauses
    parts = urlsplit(load.url)
    request = _request(parts.netloc, parts.path, load.model)
    until = time.perf_counter() + load.seconds
    callers = (
        _call(load, (str(parts.hostname), parts.port or 80), request, seen, draw, until)
        for _ in range(load.n_streams)
    )
    await asyncio.gather(*callers)
    return seen


async def _call(
    load: Load,
    address: tuple[str, int],
    request: bytes,
    seen: Seen,
    draw: random.Random,
    until: float,
) -> None:
    loop, caller = asyncio.get_running_loop(), _Caller()
    await asyncio.sleep(draw.uniform(0, load.think_ms / 1e3))  # not all in the same moment
    while time.perf_counter() < until:
        began, page = time.perf_counter(), b""
        with suppress(OSError):  # then nothing was answered
            if not caller.open:
                _, caller = await loop.create_connection(_Caller, *address)
            began = time.perf_counter()
            page = await caller.ask(request)
        if wrong := _wrong(page, load.n_pieces):
            seen.errors[wrong] = seen.errors.get(wrong, 0) + 1
            caller.close()
        else:
            seen.first_ms.append((caller.first - began) * 1e3)
            seen.total_ms.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(draw.uniform(0, 2 * load.think_ms / 1e3))
    caller.close()


def _wrong(page: bytes, n_pieces: int) -> str:
    if not page.startswith(b"HTTP/1.1 200"):
        return f"status {page[9:12].decode('latin-1')}" if page else "no answer"
    if b'"error"' in page:
        return "error event"
    return "" if says(page, n_pieces) else "not the whole reply"


def _request(host: str, path: str, model: str) -> bytes:
    data = body(model)
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def main() -> None:
    """Answer each line of standard input."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        seen = await run(Load(**orjson.loads(line)))
        print(orjson.dumps(asdict(seen)).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
