"""What an upstream's failures are called here.

An upstream's own message may repeat the prompt, so it is read for what it means and never passed
on; only status, type, code and param are, and those only if they are known; see `faults`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from elision.errors import (
    BusyError,
    ContextLengthError,
    ElisionError,
    NotFoundError,
    RequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from elision.middleware.engines.upstream.addresses import RefusedAddressError
from elision.middleware.engines.upstream.faults import CODES, KINDS, field, known

_TOO_LONG = re.compile(
    r"maximum (context|model) length|context size|context window|context_length", re.I
)
_LONGEST_WAIT_S = 3600.0
_NESTING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What an upstream's error object says, without its words.

    Attributes:
        kind: Its ``type``.
        code: Its ``code``, as a string.
        param: The field at fault.
        too_long: Whether it complains about the prompt's length.
    """

    kind: str | None = None
    code: str | None = None
    param: str | None = None
    too_long: bool = False

    def __str__(self) -> str:
        facts = {"type": self.kind, "code": self.code, "param": self.param}
        return "".join(f", {name} {value!r}" for name, value in facts.items() if value)


def read_fault(body: bytes) -> Fault:
    """Return what an error's *body* says; nothing if it is not JSON.

    Understands OpenAI's envelope, the bare object of older vLLM, errors that are mere strings,
    FastAPI's ``detail``, and lists of errors.
    """
    try:
        return _fault(orjson.loads(body))
    except orjson.JSONDecodeError:
        return Fault()


def _fault(value: Any) -> Fault:
    value = _innermost(value)
    if not isinstance(value, dict):
        return Fault(too_long=isinstance(value, str) and _says_too_long(value))
    kind, code = known(value.get("type"), KINDS), known(value.get("code"), CODES)
    words = " ".join(str(value.get(name)) for name in ("message", "type", "code"))
    param = field(value.get("param"))
    return Fault(kind=kind, code=code, param=param, too_long=_says_too_long(words))


def _innermost(value: Any) -> Any:
    for _ in range(_NESTING):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict) and (inner := value.get("error") or value.get("detail")):
            value = inner
    return value


def _says_too_long(words: str) -> bool:
    return _TOO_LONG.search(words) is not None


def of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str | None = None
) -> ElisionError:
    """Return the error that an upstream's answer other than 200 means to our caller.

    Args:
        status: The HTTP status.
        headers: Read for ``retry-after`` and ``retry-after-ms``, names in any case.
        body: Its beginning is enough.
        model: What was asked for, if a 404 can mean that it does not exist.
    """
    fault = read_fault(body)
    facts = f"status {status}{fault}"
    if status in (400, 413, 422):
        return _refused(facts, fault)
    if status in (401, 403):
        return UpstreamError(
            f"the upstream does not accept our key for it: {facts}; check the upstream key",
            upstream_status=status,
        )
    if status == 404 and model is not None:
        return NotFoundError(
            f"the upstream has no model {model!r} at this address: {facts}",
            code="model_not_found",
            param="model",
        )
    if 300 <= status < 400:
        return UpstreamError(
            f"the upstream redirects: {facts}; set the base URL to its final address",
            upstream_status=status,
        )
    return _unable(status, facts, fault, retry_after_s(headers))


def _refused(facts: str, fault: Fault) -> RequestError:
    message = f"the upstream refused the request: {facts}"
    if fault.too_long:
        return ContextLengthError(message, param=fault.param)
    return RequestError(message, param=fault.param, code=fault.code)


def _unable(status: int, facts: str, fault: Fault, wait_s: float | None) -> ElisionError:
    if fault.code == "insufficient_quota":
        return UpstreamError(f"our account at the upstream is used up: {facts}")
    if status == 429 or (status >= 500 and wait_s is not None):
        return _busy(facts, wait_s)
    kind = UpstreamTimeoutError if status in (408, 504) else UpstreamError
    retryable = status in (408, 409, 425) or (status >= 500 and status != 501)
    return kind(f"the upstream failed: {facts}", upstream_status=status, retryable=retryable)


def _busy(facts: str, wait_s: float | None) -> BusyError:
    error = BusyError(
        f"the upstream is busy: {facts}", retry_after_s=1.0 if wait_s is None else wait_s
    )
    error.code = "rate_limit_exceeded"
    return error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that *headers* ask us to wait, at most an hour; None if they do not."""
    named = {name.lower(): value for name, value in headers.items()}
    waits = (
        _seconds(named.get("retry-after-ms"), per_second=1000.0),
        _seconds(named.get("retry-after")),
        _until(named.get("retry-after")),
    )
    wait_s = next((wait for wait in waits if wait is not None), None)
    return None if wait_s is None else min(max(wait_s, 0.0), _LONGEST_WAIT_S)


def _seconds(value: str | None, *, per_second: float = 1.0) -> float | None:
    try:
        seconds = float(value or "") / per_second
    except ValueError:
        return None
    return None if seconds != seconds else seconds


def _until(value: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def in_stream(chunk: Mapping[str, Any]) -> UpstreamError:
    """Return the error that an error object in the middle of a stream means."""
    return UpstreamError(f"the upstream broke off with an error{_fault(chunk)}")


def of_transport(error: Exception) -> UpstreamError:
    """Return the error that a failed connection means.

    Errors of the operating system stay as its cause. Those of the HTTP parser do not: they quote
    the bytes that they stumble over, and some hold our request's headers.
    """
    name = type(error).__name__
    if isinstance(getattr(error, "os_error", error), RefusedAddressError):
        return UpstreamError(
            "the upstream's host name leads to a private address, and nothing was sent there; "
            "set upstream_private (private=True) if that is meant"
        )
    if isinstance(error, TimeoutError):
        failure: UpstreamError = UpstreamTimeoutError(
            f"the upstream did not answer in time ({name})", retryable=True
        )
    else:
        failure = UpstreamError(f"the connection to the upstream failed ({name})", retryable=True)
    failure.__cause__ = error if isinstance(error, OSError) else None
    return failure


def is_unconnected(error: ElisionError) -> bool:
    """Return whether no connection came about, so that nothing can have been asked."""
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
