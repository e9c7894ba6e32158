"""The layer that measures requests for text, vectors and memory."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from elision.middleware.gateway.auth import route_path
from elision.middleware.gateway.limits.meter import Meter
from elision.middleware.gateway.routes import route_label

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from elision.middleware.gateway.limits.allowance import Allowances
    from elision.middleware.gateway.spans import Telemetry

LIMITED = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/completions": "text_completion",
        "/v1/responses": "chat",
        "/v1/embeddings": "embeddings",
    }
)
"""Routes that a key's limits are about, and the operation that each is to OpenTelemetry."""

COUNTED = frozenset(
    {
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/tokenizer_info"),
        ("POST", "/v1/check"),
        ("POST", "/beta/litellm_basic_guardrail_api"),
        ("GET", "/v1/responses/{id}"),
        ("GET", "/v1/responses/{id}/input_items"),
    }
)
"""Further routes that a service key may take as often as it may ask: no tokens, but work."""

OBSERVED = MappingProxyType(
    {
        **LIMITED,
        "/v1/memory/search": "search_memory",
        "/v1/memory/import": "upsert_memory",
        "/v1/memory/erase": "delete_memory",
    }
)
"""Routes that OpenTelemetry is told of."""


class MeterGate:
    """Counts each request before its body is read, and settles what it used once it has ended.

    It hands the server's channel on as it is, so that it costs nothing per chunk.
    """

    def __init__(self, app: ASGIApp, *, allowances: Allowances, telemetry: Telemetry) -> None:
        """Stand before *app*, behind whatever says whose key it is."""
        self._app = app
        self._allowances = allowances
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise `RateLimitError`."""
        meter = self._meter(scope)
        if meter is None:
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        state["meter"] = meter
        failure: BaseException | None = None
        try:
            meter.admit()
            await self._app(scope, receive, send)
        except BaseException as exc:
            failure = exc
            raise
        finally:
            meter.close(failure or state.get("failure"))

    def _meter(self, scope: Scope) -> Meter | None:
        if scope["type"] != "http":
            return None
        method, path = scope["method"], route_path(scope)
        operation = OBSERVED.get(path) if method == "POST" else None
        if operation is None and (method, route_label(path)) not in COUNTED:
            return None
        observed = None
        if operation is not None and self._telemetry.is_on():
            observed = self._telemetry.observed(Headers(scope=scope), operation, time.time_ns())
        limited = operation is None or path in LIMITED
        allowance = self._allowances[scope["state"]["grant"].name] if limited else None
        return None if allowance is None and observed is None else Meter(allowance, observed)
