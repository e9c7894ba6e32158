"""Responses that are an upstream's own bytes."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from starlette.responses import Response

from elision.middleware.gateway.service import EPOCH_HEADER
from elision.middleware.gateway.streaming import EventStream, until_gone

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from elision.middleware.engines.upstream.relaying import Relayed
    from elision.middleware.gateway.metrics import Metrics

RELAYED_HEADER = "x-elision-relayed"
"""Says that the body is the upstream's own, byte by byte."""


class RelayStream(EventStream):
    """An upstream's stream of events, under its own headers and ours."""

    def __init__(self, answer: Relayed, metrics: Metrics, began: float) -> None:
        """Make a response.

        Args:
            answer: Opened and closed here.
            metrics: Told when its pieces left and what it counted.
            began: When the request arrived, by `time.perf_counter`.
        """
        super().__init__(answer, headers=_ours(answer))
        self._answer = answer
        self._metrics = metrics
        self._counting = _Counting(answer, metrics)
        self._last = began
        self._observe = metrics.first_token.observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; see `EventStream`."""
        async with self._counting:
            await super().__call__(scope, receive, send)

    def head(self) -> list[tuple[bytes, bytes]]:
        """Return the headers; the upstream's are among them if it has answered by now."""
        named = {name for name, _ in self._answer.headers}
        ours = [pair for pair in super().head() if pair[0] not in named]
        return ours + list(self._answer.headers)

    def leaves(self) -> bool:
        """Time a piece that leaves; return whether the upstream has said that nothing follows."""
        now = time.perf_counter()
        self._observe(now - self._last)
        self._last, self._observe = now, self._metrics.gap.observe
        if self._answer.is_last:  # before the caller can ask
            self._counting.count()
            return True
        return False


async def relay_whole(
    request: Request, answer: Relayed, metrics: Metrics, began: float
) -> Response:
    """Return the upstream's whole answer as a response.

    Args:
        request: Whose client may leave meanwhile.
        answer: Opened and closed here.
        metrics: Told what it counted.
        began: When the request arrived, by `time.perf_counter`.

    Raises:
        ElisionError: Whatever stands against it; see `Relayed`.
        ClientDisconnect: If the client left.
    """
    asked = time.perf_counter()
    async with _Counting(answer, metrics):
        data = await until_gone(request.receive, answer.whole())
    answered = time.perf_counter()
    response = Response(data, headers=_ours(answer))
    response.raw_headers += answer.headers
    overhead_ms = (time.perf_counter() - answered + asked - began) * 1e3
    response.headers["x-elision-overhead-ms"] = f"{overhead_ms:.3f}"
    return response


def _ours(answer: Relayed) -> dict[str, str]:
    return {EPOCH_HEADER: str(answer.epoch), RELAYED_HEADER: "true"}


class _Counting(AbstractAsyncContextManager["Relayed"]):
    """Lends an answer, closes it and counts its tokens. Lives as long as it."""

    def __init__(self, answer: Relayed, metrics: Metrics) -> None:
        self._answer = answer
        self._metrics = metrics
        self._counted = False

    async def __aenter__(self) -> Relayed:
        return self._answer

    async def __aexit__(self, *_failure: object) -> None:
        await self._answer.aclose()
        self.count()

    def count(self) -> None:
        """Count what the upstream has told by now, once."""
        usage = self._answer.usage
        if usage is not None and not self._counted:
            self._counted = True
            self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
            self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
