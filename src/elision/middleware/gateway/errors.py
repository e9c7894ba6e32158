"""Every error in OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from elision.errors import BusyError, ElisionError, PermissionDeniedError, RequestError

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ROUTING = {
    404: ("there is no such route", "unknown_url"),
    405: ("this route does not take that method", "method_not_allowed"),
}


class BodyTooLargeError(RequestError):
    """The request body exceeds the limit; the rest of it was not read: HTTP 413."""

    status = 413
    code = "request_too_large"


class OriginError(ElisionError):
    """A web page of another origin tried to use a server that asks for no key: HTTP 403."""

    status = 403
    kind = "permission_error"
    code = "foreign_origin"


class RoleError(PermissionDeniedError):
    """The key lacks the role that a route asks for: HTTP 403.

    Attributes:
        wanted: The roles any one of which would do.
    """

    code = "role_missing"

    def __init__(self, wanted: Iterable[str]) -> None:
        self.wanted = tuple(sorted(wanted))
        roles = " or ".join(map(repr, self.wanted))
        super().__init__(f"this key lacks the role {roles}; use one that has it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as the wire tells it.

    Attributes:
        status: HTTP status.
        message: For people; no text of the request or the reply.
        kind: OpenAI's ``type``.
        code: OpenAI's ``code``.
        param: The field at fault.
        headers: To be sent along.
    """

    status: int
    message: str
    kind: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the envelope."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})

    def response(self) -> Response:
        """Return the whole response."""
        return Response(
            self.body(),
            status_code=self.status,
            headers=dict(self.headers),
            media_type="application/json",
        )


def failure_of(exc: Exception) -> Failure:
    """Translate any exception; of one that was not raised on purpose, nothing is told."""
    match exc:
        case ElisionError():
            return _told(exc)
        case RequestValidationError():
            return _invalid(exc)
        case HTTPException():
            return _routing(exc)
    return Failure(
        status=500,
        message="the server failed on this request; its log has the id of x-request-id",
        kind="server_error",
        code="internal_error",
        headers={"x-should-retry": "false"},  # a fault of ours is one again
    )


def _told(exc: ElisionError) -> Failure:
    return Failure(
        status=exc.status,
        message=str(exc),
        kind=exc.kind,
        code=exc.code,
        param=exc.param,
        headers=_headers(exc),
    )


def _headers(exc: ElisionError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    if exc.status == 413:
        headers["connection"] = "close"  # the rest of the body is still on its way
    if isinstance(exc, BusyError):
        headers["retry-after"] = str(max(1, math.ceil(exc.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(exc.retry_after_s * 1e3)))
    if exc.status >= 429:
        # openai-python repeats every 5xx twice unless told; a guard that broke breaks again.
        headers["x-should-retry"] = "true" if exc.retryable else "false"
    return headers


def _invalid(exc: RequestValidationError) -> Failure:
    """Tell where and what of the first fault; pydantic's ``input`` stays behind."""
    fault: Mapping[str, Any] = exc.errors()[0]
    param = ".".join(str(part) for part in fault["loc"][1:]) or None
    return Failure(
        status=400,
        message=f"{param!r} is not valid: {fault['msg']}",
        kind="invalid_request_error",
        code=str(fault["type"]),
        param=param,
    )


def _routing(exc: HTTPException) -> Failure:
    message, code = _ROUTING.get(exc.status_code, (HTTPStatus(exc.status_code).phrase, None))
    return Failure(
        status=exc.status_code,
        message=message,
        kind=_KINDS.get(exc.status_code, "invalid_request_error"),
        code=code,
        headers=dict(exc.headers or {}),
    )
