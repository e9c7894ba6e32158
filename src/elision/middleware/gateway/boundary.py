"""The outermost layer: every request gets an id, one log line, one count and no stack trace."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from structlog.contextvars import bound_contextvars

from elision.errors import ElisionError
from elision.middleware.gateway.errors import failure_of
from elision.middleware.gateway.limits.meter import kind_of
from elision.middleware.gateway.logs import gateway_log
from elision.middleware.gateway.metrics import Metrics
from elision.middleware.gateway.routes import route_label

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class _Exchange:
    """One request and what became of it. Lives as long as the request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.id = _request_id(scope)
        self.route = route_label(scope["path"])
        self.status = 0
        self.failure: Exception | None = None
        self.began = time.perf_counter()
        self._send = send
        self._state: dict[str, Any] = scope.setdefault("state", {})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.id
            if (meter := self._state.get("meter")) is not None:
                meter.stamp(message["headers"])
        await self._send(message)

    def _outcome(self) -> str:
        gone = isinstance(self.failure, ClientDisconnect)
        return "client gone" if gone else f"{self.status // 100}xx"

    def note(self, metrics: Metrics) -> None:
        """Count and log. The error's type is told, never its message: that may be foreign."""
        seconds = time.perf_counter() - self.began
        metrics.seconds.labels(self.route).observe(seconds)
        metrics.requests.labels(self.route, self._outcome()).inc()
        facts: dict[str, Any] = {"id": self.id, "route": self.route, "status": self.status}
        if self.failure is not None:
            facts["error"] = type(self.failure).__name__
            metrics.failures.labels(_label(self.failure)).inc()
            if (kind := kind_of(self.failure)) is not None:
                metrics.rate_limited.labels(kind).inc()
        level = logging.INFO if not _unforeseen(self.failure) else logging.ERROR
        gateway_log.log(level, "request", **facts, ms=round(seconds * 1e3, 1))


class Boundary:
    """Turns every exception into OpenAI's envelope; nothing passes it outward."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Stand before *app* and count in *metrics*."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        state = scope.setdefault("state", {})
        in_flight = self._metrics.in_flight.labels(exchange.route).track_inprogress()
        with in_flight, bound_contextvars(request_id=exchange.id):
            try:
                await self._app(scope, receive, exchange.send)
                exchange.failure = state.get("failure")
            except Exception as exc:
                exchange.failure = exc
                await self._answer(exc, scope, receive, exchange)
            finally:
                exchange.note(self._metrics)

    async def _answer(
        self, exc: Exception, scope: Scope, receive: Receive, exchange: _Exchange
    ) -> None:
        if exchange.status == 0 and not isinstance(exc, ClientDisconnect):
            await failure_of(exc).response()(scope, receive, exchange.send)


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _SANE_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"


def _unforeseen(failure: Exception | None) -> bool:
    return failure is not None and not isinstance(failure, (ElisionError, ClientDisconnect))


def _label(failure: Exception) -> str:
    return "unforeseen" if _unforeseen(failure) else type(failure).__name__
