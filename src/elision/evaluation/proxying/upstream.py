"""An upstream process: the same reply to everyone, at a steady pace, as cheaply as Python can.

Run as ``python -m elision.evaluation.proxying.upstream N_PIECES GAP_MS``; prints its address.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from elision.evaluation.proxying.script import MODEL, events

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_scripted\r\nopenai-processing-ms: 1\r\ntransfer-encoding: chunked\r\n\r\n"
)
_MODELS = b'{"object":"list","data":[{"id":"%b","object":"model"}]}' % MODEL.encode()
_LENGTH = b"content-length:"


class _Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, pieces: list[bytes], gap_s: float) -> None:
        self._pieces = pieces
        self._gap_s = gap_s
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if not gap or len(rest) < _length(head):
            return
        self._buffer = rest[_length(head) :]
        if head.startswith(b"GET"):
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            answer += b"content-length: %d\r\n\r\n%b" % (len(_MODELS), _MODELS)
            self._transport.write(answer)
        else:
            self._transport.write(_HEAD + self._pieces[0])
            self._say(1, self._loop.time())

    def _say(self, n: int, began: float) -> None:
        if n > 1:
            self._transport.write(self._pieces[n - 1])
        if n < len(self._pieces):
            # From the beginning, so that late timers do not add up.
            self._timer = self._loop.call_at(began + n * self._gap_s, self._say, n + 1, began)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _length(head: bytes) -> int:
    at = head.lower().find(_LENGTH)
    return 0 if at < 0 else int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])


def _framed(n: int) -> list[bytes]:
    """Return a reply as it goes over the wire; its last event, its end and HTTP's are one."""
    *found, finish, done = events(n)
    return [*map(_chunk, found), _chunk(finish) + _chunk(done) + b"0\r\n\r\n"]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(n_pieces: int, gap_s: float) -> None:
    """Serve until killed."""
    pieces, loop = _framed(n_pieces), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Line(pieces, gap_s), "127.0.0.1", 0, backlog=2048)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1e3))
