"""A stream of events cut between them: each is looked at, none is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from elision.contract import Usage
from elision.errors import UpstreamError
from elision.middleware.engines.upstream.errors import in_stream
from elision.middleware.engines.upstream.sse import EVENT_LIMIT_BYTES, Framer

# Atomic groups: a line's CRLF is one line end, never an empty line between CR and LF.
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BEFORE_END = 3  # bytes of an end that may have come with an earlier chunk


class Cutter:
    """Cuts a stream's bytes between events and looks at each event. Lives for one answer.

    Attributes:
        done: Whether the upstream has said that nothing follows.
        usage: What it counted, once it has said so.
    """

    def __init__(self, *, limit: int = EVENT_LIMIT_BYTES) -> None:
        """Wait for no event that is longer than *limit* bytes."""
        self.done = False
        self.usage: Usage | None = None
        self._limit = limit
        self._rest = b""
        self._fault: UpstreamError | None = None
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that *chunk* completes, as they came; nothing after the last.

        Raises:
            UpstreamError: If an event is an error, no chunk of a reply, or too long. Events before
                it in the same chunk are returned first, and the error is raised by the next call.
        """
        if self._fault is not None:
            raise self._fault
        # Nearly every chunk is one event of one line of data, and runs for every token.
        if (
            not self._rest
            and chunk.startswith(b"data: ")
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk.endswith(b"\n")
            and b"\r" not in chunk
        ):
            if not self._is_ordinary(event := chunk[6:-2]):
                self._look(event)
            return chunk
        whole = self._whole(self._rest + chunk)
        if not whole:
            self._check()
        return whole

    def finish(self) -> None:
        """Take note that the upstream's bytes have ended.

        Raises:
            UpstreamError: If a choice, or an event, has not: the stream was cut off.
        """
        self._check()
        self._end(cut=bool(self._rest))

    def _end(self, *, cut: bool = False) -> None:
        if cut or not self._finished or self._begun - self._finished:
            raise UpstreamError(
                f"the upstream's stream ended with {len(self._finished)} of "
                f"{len(self._begun)} choices finished",
                retryable=True,
            )
        self.done = True

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _whole(self, data: bytes) -> bytes:
        end = 0
        try:
            for found in _END.finditer(data, max(0, len(self._rest) - _BEFORE_END)):
                for event in Framer().feed(data[end : found.end()]):
                    self._look(event)
                end = found.end()
                if self.done:
                    return data[:end]
        except UpstreamError as exc:
            self._fault = exc
        self._rest = data[end:]
        if len(self._rest) > self._limit and self._fault is None:
            self._fault = UpstreamError(f"the upstream sent an event of over {self._limit} bytes")
        return data[:end]

    def _is_ordinary(self, event: bytes) -> bool:
        """Whether `_look` would learn nothing from *event*: one more piece of a known choice."""
        try:
            chunk = orjson.loads(event)
            choice, *further = chunk["choices"]
            return (
                choice["index"] in self._begun
                and not further
                and not choice["finish_reason"]
                and not chunk.get("error")
                and not chunk.get("usage")
                and chunk.get("object") != "error"
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return False

    def _look(self, event: bytes) -> None:
        if event.startswith(b"[DONE]"):
            self._end()
            return
        if not event:
            return
        chunk = json_object(event)
        if chunk.get("error") or chunk.get("object") == "error":
            raise in_stream(chunk)
        if chunk.get("usage"):
            self.usage = usage_in(chunk) or self.usage
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict) or not isinstance(index := choice.get("index", 0), int):
                raise UpstreamError("the upstream sent a choice that is none")
            self._begun.add(index)
            if choice.get("finish_reason"):
                self._finished.add(index)


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that *data* is.

    Raises:
        UpstreamError: If it is none, or not in UTF-8, or has choices that are no list.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("choices") or [], list):
        failure = UpstreamError(f"the upstream sent {len(data)} bytes that are no part of a reply")
        raise failure
    return value


def usage_in(body: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that an upstream's *body* counts; None if it does not."""
    told = body.get("usage")
    if not isinstance(told, dict):
        return None
    counts = (told.get(name) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (n if isinstance(n, int) and n >= 0 else 0 for n in counts)
    return Usage(prompt_tokens=prompt, completion_tokens=completion)
