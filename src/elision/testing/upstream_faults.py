"""How a scripted upstream fails, on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from elision.testing.upstream_line import Exchange

SLOW_S: Final = 3600.0

BEFORE: Final = ("hangs-up", "silent", "redirect")
"""Faults in place of an answer; so are statuses, ``"429"`` and the like."""

WITHIN: Final = (
    "reset", "breaks", "slow", "malformed", "half-utf8", "error-event", "ends-early", "stray",
    "endless", "endless-line",
)  # fmt: skip
"""Faults in the middle of a streamed answer."""

_EVENTS: Final[Mapping[str, bytes]] = {
    "malformed": b'data: {"choices": [{"delta": {"conte\n\n',
    "half-utf8": b'data: {"choices": [{"index": 0, "delta": {"content": "\xf0\x9f"}}]}\n\n',
    "error-event": b'data: {"error": {"message": "scripted", "type": "server_error"}}\n\n',
    "stray": b"data: <html>scripted</html>\n\n",
}


async def fail_before(exchange: Exchange, fault: str, *, owner: str, location: str) -> None:
    """Answer with a status, or not at all.

    Args:
        exchange: What to answer.
        fault: One of `BEFORE`, or a status in digits.
        owner: Whose envelope.
        location: Where a redirect leads.
    """
    if fault == "hangs-up":
        exchange.hang_up()
    elif fault == "silent":
        await asyncio.sleep(SLOW_S)
    elif fault == "redirect":
        await exchange.answer(307, b"", location=location)
    else:
        wait = {"retry_after": "0"} if fault in ("429", "503") else {}
        await exchange.answer(int(fault), envelope(int(fault), "scripted", owner=owner), **wait)


async def fail_within(exchange: Exchange, fault: str) -> None:
    """Break an answer that has begun; returns if the stream may be ended after it."""
    if fault == "reset":
        exchange.reset()
    elif fault == "breaks":
        await exchange.raw(b'ff\r\ndata: {"choices"')
        exchange.hang_up()
    elif fault == "slow":
        await asyncio.sleep(SLOW_S)
    elif fault == "endless-line":
        while True:
            await exchange.send(b"data: " + b"on and on " * 4000)
            await asyncio.sleep(0)
    elif fault in _EVENTS:
        await exchange.send(_EVENTS[fault])


def envelope(status: int, words: str, *, owner: str, param: str | None = None) -> Any:
    """Return an error as servers of *owner*'s kind write it."""
    if owner == "vllm" and status == 401:
        return {"error": "Unauthorized"}
    if owner == "vllm":
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
        return {"error": {"message": words, "type": kind, "param": param, "code": status}}
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = {429: "rate_limit_exceeded", 404: "model_not_found"}.get(status)
    return {"error": {"message": words, "type": kind, "param": param, "code": code}}


def event(chunk: Mapping[str, Any], framing: str) -> bytes:
    """Return *chunk* as one server-sent event.

    Args:
        chunk: What to send.
        framing: ``lf``, ``crlf`` or ``cr`` line ends; ``multi``: JSON over several data lines;
            ``comments``: with a keep-alive comment and an event's name before it.
    """
    data = orjson.dumps(chunk)
    if framing == "multi":
        lines = orjson.dumps(chunk, option=orjson.OPT_INDENT_2).split(b"\n")
        return b"".join(b"data: %b\n" % line for line in lines) + b"\n"
    if framing == "comments":
        return b": keep-alive\n\nevent: chunk\ndata:%b\n\n" % data
    end = {"crlf": b"\r\n", "cr": b"\r"}.get(framing, b"\n")
    return b"data: %b%b%b" % (data, end, end)
