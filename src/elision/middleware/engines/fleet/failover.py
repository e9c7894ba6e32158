"""When one server does not take a request: whether the next may, and what to say if none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from elision.errors import BusyError, CapabilityError, ElisionError, GuardError, UpstreamError
from elision.middleware.engines.upstream.errors import is_unconnected

RETRY_AFTER_S: Final = 5.0
MOST_BROKEN: Final = 1
"""Servers that may fail at a request before it is taken to be the request that breaks them."""


class Failover:
    """What the servers did that did not take a request. Lives for that request.

    Args:
        engine: Whose servers, for errors.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._failures: list[ElisionError] = []
        self._n_broken = 0
        self._was_sent = False

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Mark that the request itself is with a server, and no longer what goes before it."""
        self._was_sent = True
        try:
            yield
        except UpstreamError as exc:
            self._n_broken += _may_have_broken(exc)
            raise

    def moves_on(self, exc: ElisionError) -> bool:
        """Return whether another server may be asked behind *exc*, if nothing was said yet.

        One that was silent over the request itself is not followed by the next: the wait would
        begin anew. One that broke at it is followed by one other: a third would break too.
        """
        was_sent, self._was_sent = self._was_sent, False
        self._failures.append(exc)
        if not isinstance(exc, UpstreamError):
            return isinstance(exc, BusyError | GuardError | CapabilityError)
        if isinstance(exc, TimeoutError) and was_sent and not is_unconnected(exc):
            return False
        return exc.retryable and self._n_broken <= MOST_BROKEN

    def reason(self) -> ElisionError:
        """Return what to say when no server took it: the most telling of their reasons."""
        for failure in self._failures:
            if not is_unconnected(failure):
                return failure
        busy = BusyError(
            f"no vLLM server of {self._engine!r} answers now; it is tried again in a few seconds",
            retry_after_s=RETRY_AFTER_S,
        )
        busy.status, busy.kind, busy.code = 503, "server_error", "engine_unavailable"
        return busy


def is_lost(exc: ElisionError) -> bool:
    """Return whether *exc* says that a connection was refused, reset or cut off, or came not about.

    Whoever answers at that address next may be another server. One that is slow is the same.
    """
    if not isinstance(exc, UpstreamError) or exc.upstream_status is not None:
        return False
    return exc.retryable and (not isinstance(exc, TimeoutError) or is_unconnected(exc))


def is_broken_off(exc: UpstreamError) -> bool:
    """Return whether a server that is there ended a request with an error of its own."""
    is_failed = exc.upstream_status is None or exc.upstream_status >= 500
    return is_failed and not is_lost(exc) and not isinstance(exc, TimeoutError)


def _may_have_broken(exc: UpstreamError) -> bool:
    """Return whether a server may have fallen over the request: vLLM's then answers 500, or not."""
    return exc.upstream_status == 500 or (is_lost(exc) and not is_unconnected(exc))
