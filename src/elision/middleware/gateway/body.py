"""A request's JSON body, read once and never further than the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from elision.errors import RequestError
from elision.middleware.gateway.errors import BodyTooLargeError

if TYPE_CHECKING:
    from starlette.requests import Request


async def read_json(request: Request, limit: int) -> Any:
    """Return the parsed body of *request*.

    Args:
        request: Whose body has not been read.
        limit: Most bytes to accept; a declared length beyond it is refused unread.

    Raises:
        BodyTooLargeError: If the body is longer than *limit*.
        RequestError: If it is empty or no valid JSON. The message says where, not what.
        ClientDisconnect: If the client left before its end.
    """
    data = await _read(request, limit)
    if not data:
        raise RequestError("the request body is empty; send a JSON object", code="invalid_json")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        message = f"the request body is not valid JSON ({where})"
    # Raised out here, so that the cause, which carries the whole body, is not chained.
    raise RequestError(message, code="invalid_json")


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the request body is longer than {limit} bytes; send less")
