"""Server-sent events, taken apart on bytes."""

from __future__ import annotations

from elision.errors import UpstreamError

EVENT_LIMIT_BYTES = 1_000_000
"""Largest event that is waited for; our own bound, so that an endless line cannot fill memory."""


class Framer:
    """Cuts a byte stream into the data of its events. Lives for one response.

    Works on bytes, so the stream may be cut anywhere, inside a character too. Lines end in LF, CRLF
    or CR. Comments and the fields ``id`` and ``retry`` are dropped, as is an event that the
    stream's end cuts off, and one of an unknown type whose data is no object. The data of the type
    ``error`` becomes an object with that key, as errors look that come without a type.

    Args:
        limit: Most bytes that one event may hold.

    Source:
        WHATWG HTML, section 9.2.6 "Interpreting an event stream"; our own additions: the bound, and
        events without data yield nothing.
    """

    def __init__(self, *, limit: int = EVENT_LIMIT_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._type = b""
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that *chunk* completes, in order.

        Raises:
            UpstreamError: If an event grows past the limit.
        """
        events = []
        for piece in self._lines(chunk):
            line = self._complete(piece)
            if line is None:
                continue
            if line:
                self._field(line)
            else:
                events.extend(self._dispatch())
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        return chunk.splitlines(keepends=True)

    def _complete(self, piece: bytes) -> bytes | None:
        """Return the line that *piece* ends, without its end; None while it is still open."""
        self._line.append(piece)
        self._grow(len(piece))
        self._after_cr = piece.endswith(b"\r")
        if not piece.endswith((b"\n", b"\r")):
            return None
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line.clear()
        return self._without_mark(line)

    def _without_mark(self, line: bytes) -> bytes:
        if self._first:
            self._first = False
            return line.removeprefix(b"\xef\xbb\xbf")
        return line

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._type = value.removeprefix(b" ")
        elif not self._data:
            self._size = 0

    def _dispatch(self) -> list[bytes]:
        events = _of_type(self._type, b"\n".join(self._data)) if self._data else []
        self._data.clear()
        self._type = b""
        self._size = 0
        return events

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise UpstreamError(f"the upstream sent an event of over {self._limit} bytes")


def _of_type(kind: bytes, data: bytes) -> list[bytes]:
    if kind == b"error":
        return [b'{"error":%b}' % (data or b'""')]
    is_known = kind in (b"", b"message") or data.startswith((b"{", b"[DONE]"))
    return [data] if is_known else []
