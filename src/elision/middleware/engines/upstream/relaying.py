"""An upstream's answer handed on as it comes, for callers from whom nothing is kept.

Bytes leave as they arrived. They are only looked at: a stream is cut between events, so that an
error of ours can always follow, and what is no event of a reply ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeAlias
from weakref import ref

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from elision.contract import Usage
from elision.errors import ElisionError, UpstreamError
from elision.middleware.engines.upstream.cutting import Cutter, json_object, usage_in
from elision.middleware.engines.upstream.errors import of_transport, read_fault
from elision.middleware.engines.upstream.sse import EVENT_LIMIT_BYTES

Ask: TypeAlias = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Sends the request and lends an answer of status 200; takes ``deadline``, on the loop's clock."""

WHOLE_LIMIT_BYTES = 64_000_000
"""Longest answer that is taken in whole; our own bound."""

_EVENTS = b"text/event-stream"
_JSON = b"application/json"
_DRAIN_S = 0.05
_KEPT = (b"x-", b"openai-")
_OURS = (b"x-elision-", b"x-forget-", b"x-should-retry")
_COMMANDS = (b"x-accel-", b"x-sendfile", b"x-lighttpd-", b"x-reproxy-")
"""What the web server before us would obey: it would send files of its own."""
_RENAMED = {b"x-request-id": b"x-upstream-request-id"}


class Relayed:
    """One answer of an upstream on its way to the caller. Lives until `aclose`.

    Nothing is asked before it is opened: by `open`, by `whole` or by the first step of iterating,
    which yields a stream's bytes, some whole events at a time.

    Attributes:
        headers: What of the upstream's headers is handed on, once open: its content type, ``x-*``
            and ``openai-*``; its request id as ``x-upstream-request-id``.
        usage: What the upstream counted, once it has said so.
        outcome: ``abandoned``, ``finished``, or the class of the error that ended it.
        epoch: Of the caller's register when it held nothing that would be kept back.
    """

    def __init__(self, ask: Ask, *, stream: bool, timeout_s: float | None = None) -> None:
        """Describe the exchange.

        Args:
            ask: Sends the request.
            stream: Whether events are wanted, or one JSON value.
            timeout_s: Deadline for all of it in seconds, from its opening.
        """
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.usage: Usage | None = None
        self.outcome = "abandoned"
        self.epoch = 0
        self.stream = stream
        self._ask = ask
        self._timeout_s = timeout_s
        self._open = AsyncExitStack()
        self._response: aiohttp.ClientResponse | None = None
        self._cut = Cutter()
        self._fate = _Fate(self)
        self._when_closed: list[Callable[[Relayed], object]] = []

    def when_closed(self, call: Callable[[Relayed], object]) -> None:
        """Have *call* told of the end, whatever it is, once."""
        self._when_closed.append(call)

    async def open(self) -> None:
        """Ask the upstream and wait until its answer begins.

        Raises:
            ElisionError: What its refusal means, as `RemoteEngine.stream` raises it.
            UpstreamError: If it answers in another form than was wanted, too.
        """
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout_s is None else loop.time() + self._timeout_s
        with self._fate:
            response = await self._open.enter_async_context(self._ask(deadline=deadline))
            if deadline is not None:
                # One timer for the whole answer: a timeout around each read costs more than it.
                late = response.content.set_exception
                timer = loop.call_at(deadline, late, TimeoutError())
                self._open.callback(timer.cancel)
            await self._check_form(response)
        kind = _EVENTS if self.stream else _JSON
        self.headers = tuple(_handed_on(response.raw_headers, kind))
        self._response = response

    async def whole(self) -> bytes:
        """Return the answer, taken in whole.

        Raises:
            UpstreamError: If it breaks off, is no JSON object, or exceeds `WHOLE_LIMIT_BYTES`.
        """
        if self._response is None:
            await self.open()
        with self._fate:
            body = await self._rest(WHOLE_LIMIT_BYTES)
            self.usage = usage_in(json_object(body))
        self.outcome = "finished"
        return body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events.

        Raises:
            UpstreamError: If the stream breaks off, or holds what is no chunk of a reply; events
                before that were returned.
        """
        if self._response is None:
            await self.open()
        cut = self._cut
        with self._fate:
            while not cut.done:
                if not (chunk := await self._read()):
                    cut.finish()
                elif piece := cut.feed(chunk):
                    self.usage = cut.usage
                    return piece
        raise StopAsyncIteration

    @property
    def is_last(self) -> bool:
        """Whether nothing follows what was returned last."""
        return self._cut.done

    async def aclose(self) -> None:
        """Close the upstream's connection, unless the answer was read to its end. Idempotent."""
        try:
            if self.is_last and self.outcome == "abandoned":
                await self._end()
        finally:
            await self._open.aclose()
        calls, self._when_closed = self._when_closed, []
        for call in calls:
            call(self)

    async def _end(self) -> None:
        """Read the few bytes behind the last event, so that the connection can serve again."""
        self.outcome = "finished"
        try:
            async with asyncio.timeout(_DRAIN_S):
                while await self._read():
                    pass
        except (TimeoutError, UpstreamError):
            return

    async def _check_form(self, response: aiohttp.ClientResponse) -> None:
        if (response.content_type == _EVENTS.decode()) is self.stream:
            return
        if not self.stream:
            raise UpstreamError("the upstream answered with an event stream instead of JSON")
        self._response = response
        fault = read_fault(await self._rest(EVENT_LIMIT_BYTES))
        raise UpstreamError(
            f"the upstream answered with {response.content_type!r} instead of an event stream"
            f"{fault}"
        )

    async def _rest(self, limit: int) -> bytes:
        body = bytearray()
        while chunk := await self._read():
            body += chunk
            if len(body) > limit:
                raise UpstreamError(f"the upstream's answer is longer than {limit} bytes")
        return bytes(body)

    async def _read(self) -> bytes:
        assert self._response is not None
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            failure = of_transport(exc)
        # Raised out here so that what the HTTP parser quoted does not hang on as its context.
        raise failure


class _Fate:
    """Keeps what kind of error ended an exchange. A class: a generator costs five times this.

    It does not own the exchange: a cycle would keep every answer's buffers until the next full look
    for garbage.
    """

    __slots__ = ("_relayed",)

    def __init__(self, relayed: Relayed) -> None:
        self._relayed = ref(relayed)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None and issubclass(kind, ElisionError):
            relayed = self._relayed()
            if relayed is not None:
                relayed.outcome = kind.__name__


def relayed_body(body: Mapping[str, Any], *, model: str) -> bytes:
    """Return *body* as it goes to an upstream that calls the model *model*."""
    theirs = {name: value for name, value in body.items() if name != "elision"}
    return orjson.dumps(theirs | {"model": model})


def _handed_on(headers: tuple[tuple[bytes, bytes], ...], kind: bytes) -> list[tuple[bytes, bytes]]:
    """Return what of an upstream's *headers* concerns the caller; what is said by us stays ours.

    The content type is *kind*, which was checked: of another one only the body was believed.
    """
    kept, content_type = [], kind
    named = [(name.lower().replace(b"_", b"-"), value) for name, value in headers]
    hops = {hop.strip().lower() for name, value in named if name == b"connection"
            for hop in value.replace(b"_", b"-").split(b",")}  # fmt: skip
    for name, value in named:
        if name == b"content-type" and value.split(b";")[0].strip().lower() == kind:
            content_type = value
        elif name.startswith(_KEPT) and not name.startswith(_OURS + _COMMANDS) and name not in hops:
            kept.append((_RENAMED.get(name, name), value))
    return [(b"content-type", content_type), *kept]
