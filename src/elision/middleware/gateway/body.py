"""A request's body, read once and never further than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from elision.errors import RequestError
from elision.middleware.gateway.errors import BodyTooLargeError

if TYPE_CHECKING:
    from starlette.requests import Request

LINGER_S = 2.0
"""How long the rest of a body that is too large is read and thrown away."""

DEEPEST = 100
"""Levels of a body. orjson reads 1,024, and writes 254: what is read is written elsewhere."""

LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/x-jsonlines"})
"""Media types of bodies that are one JSON value a line."""


async def read_json(request: Request, limit: int, *, optional: bool = False) -> Any:
    """Return the parsed body of *request*.

    Args:
        request: Whose body has not been read.
        limit: Most bytes to accept and ever to hold.
        optional: Whether an empty body is an empty object.

    Raises:
        BodyTooLargeError: If the body is longer than *limit*.
        RequestError: If it is empty or no valid JSON. The message says where, not what.
        ClientDisconnect: If the client left before its end.
    """
    data = await _read(request, limit)
    if not data and optional:
        return {}
    if not data:
        raise RequestError("the request body is empty; send a JSON object", code="invalid_json")
    return _parsed(data, "the request body")


async def read_lines(request: Request, limit: int) -> list[Any] | None:
    """Return the values of a body that is one JSON value a line; None if its type is not that.

    Raises:
        BodyTooLargeError: If the body is longer than *limit*.
        RequestError: If a line is no valid JSON. The message says where, not what.
        ClientDisconnect: If the client left before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in LINES:
        return None
    lines = (await _read(request, limit)).split(b"\n")
    return [_parsed(line, f"line {n} of the body") for n, line in enumerate(lines, 1) if line]


def _parsed(data: bytes, what: str) -> Any:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        message = f"{what} is not valid JSON ({where})"
    else:
        # Counted first: next to no body has that many brackets, and most are short of them.
        if data.count(b"[") + data.count(b"{") <= DEEPEST or not _is_deep(value):
            return value
        message = f"{what} is nested more than {DEEPEST} deep; send it flatter"
    # Raised out here, so that the cause, which carries the whole body, is not chained.
    raise RequestError(message, code="invalid_json")


def _is_deep(value: object) -> bool:
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


async def _read(request: Request, limit: int) -> bytes:
    chunks = request.stream()
    declared = request.headers.get("content-length", "")
    if not (declared.isdecimal() and int(declared) > limit):
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > limit:
                break
        else:
            return bytes(data)
    if "expect" not in request.headers:  # otherwise the client waits for a word before it sends
        await _discard(chunks)
    raise _too_large(limit)


async def _discard(chunks: AsyncIterator[bytes]) -> None:
    """Let the client finish sending, or it would meet a reset where the answer should be."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            async for _ in chunks:
                pass


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the request body is longer than {limit} bytes; send less")
