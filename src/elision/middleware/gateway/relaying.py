"""Responses that are an upstream's own bytes."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Self

from starlette.responses import Response

from elision.middleware.gateway.limits.estimate import BYTES_PER_TOKEN
from elision.middleware.gateway.service import EPOCH_HEADER
from elision.middleware.gateway.streaming import EventStream, until_gone

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from elision.middleware.engines.upstream.relaying import Relayed
    from elision.middleware.gateway.limits.meter import Meter
    from elision.middleware.gateway.metrics import Metrics

RELAYED_HEADER = "x-elision-relayed"
"""Says that the body is the upstream's own, byte by byte."""

_FRAME_BYTES: Final = 512
"""What an event may have around its text before it counts as more than a token."""


class RelayStream(EventStream):
    """An upstream's stream of events, under its own headers and ours."""

    def __init__(self, answer: Relayed, metrics: Metrics, began: float, meter: Meter) -> None:
        """Make a response.

        Args:
            answer: Opened and closed here.
            metrics: Told when its pieces left and what it counted.
            began: When the request arrived, by `time.perf_counter`.
            meter: The request's.
        """
        self._weighed = _Weighed(answer) if meter.counts_tokens else None
        super().__init__(self._weighed or answer, headers=_ours(answer))
        self._answer = answer
        self._metrics = metrics
        self._counting = _Counting(answer, metrics, meter)
        self._last = began
        self._meter = meter
        self._observe = self._begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; see `EventStream`."""
        try:
            async with self._counting:
                await super().__call__(scope, receive, send)
        finally:
            if self._weighed is not None:
                self._meter.wrote(self._weighed.n_tokens * BYTES_PER_TOKEN)

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

    def _begin(self, seconds: float) -> None:
        self._metrics.first_token.observe(seconds)
        if self._meter.observed is not None:
            self._meter.observed.first_s = seconds


async def relay_whole(
    request: Request, answer: Relayed, metrics: Metrics, began: float, meter: Meter
) -> Response:
    """Return the upstream's whole answer as a response.

    Args:
        request: Whose client may leave meanwhile.
        answer: Opened and closed here.
        metrics: Told what it counted.
        began: When the request arrived, by `time.perf_counter`.
        meter: The request's.

    Raises:
        ElisionError: Whatever stands against it; see `Relayed`.
        ClientDisconnect: If the client left.
    """
    asked = time.perf_counter()
    async with _Counting(answer, metrics, meter):
        data = await until_gone(request.receive, answer.whole())
    meter.wrote(len(data))  # an upstream may forget to say what it counted
    answered = time.perf_counter()
    response = Response(data, headers=_ours(answer))
    response.raw_headers += answer.headers
    overhead_ms = (time.perf_counter() - answered + asked - began) * 1e3
    response.headers["x-elision-overhead-ms"] = f"{overhead_ms:.3f}"
    return response


def _ours(answer: Relayed) -> dict[str, str]:
    return {EPOCH_HEADER: str(answer.epoch), RELAYED_HEADER: "true"}


class _Weighed:
    """Hands an answer's pieces on and estimates their tokens, should the upstream not count them.

    An event is a token, as a rule, and more if it is long.
    """

    def __init__(self, answer: Relayed) -> None:
        self._answer = answer
        self.n_tokens = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._answer.__anext__()
        n_events = piece.count(b"\ndata:") + piece.startswith(b"data:")
        self.n_tokens += max(n_events, (len(piece) - n_events * _FRAME_BYTES) // BYTES_PER_TOKEN)
        return piece

    async def aclose(self) -> None:
        """Close the answer. Idempotent."""
        await self._answer.aclose()


class _Counting(AbstractAsyncContextManager["Relayed"]):
    """Lends an answer, closes it and counts its tokens. Lives as long as it."""

    def __init__(self, answer: Relayed, metrics: Metrics, meter: Meter) -> None:
        self._answer = answer
        self._metrics = metrics
        self._meter = meter
        self._counted = False

    async def __aenter__(self) -> Relayed:
        self._meter.begin()
        return self._answer

    async def __aexit__(self, *_failure: object) -> None:
        await self._answer.aclose()
        self.count()

    def count(self) -> None:
        """Count what the upstream has told by now, once."""
        usage = self._answer.usage
        if usage is not None and not self._counted:
            self._counted = True
            self._metrics.count(usage)
            self._meter.used(usage)
