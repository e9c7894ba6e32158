"""What observing targets meet in real traffic: counts by target, since the process began."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from threading import Lock
from typing import TYPE_CHECKING

from elision.errors import ElisionError
from elision.guards.guard import Guard
from elision.guards.phrases.recent import Recent

if TYPE_CHECKING:
    from elision.contract import Delta
    from elision.guards.register.register import Register
    from elision.guards.targets import ForgetTarget
    from elision.middleware.gateway.metrics import Metrics

_TENANTS = 64


class Shadow:
    """Counts the phrases of observing targets in replies that left. Lives with the application.

    Args:
        register: Where the targets are kept.
        metrics: Told the total; labels never carry a target's id.
    """

    def __init__(self, register: Register, metrics: Metrics) -> None:
        self._register = register
        self._metrics = metrics
        self._guards: Recent[str, tuple[tuple[ForgetTarget, ...], Guard]] = Recent(entries=_TENANTS)
        self._replies: Counter[tuple[str, str]] = Counter()
        self._hits: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def seen(self, tenant: str, target_id: str) -> tuple[int, int]:
        """Return how often a target was met, and in how many choices."""
        with self._lock:
            return self._hits[tenant, target_id], self._replies[tenant, target_id]

    async def watch(self, deltas: AsyncIterator[Delta], tenant: str) -> AsyncIterator[Delta]:
        """Pass one request's *deltas* on; its text is looked through once it has ended.

        On another thread, and nobody waits for it: a count must not delay or fail a reply.
        """
        texts: dict[int, list[str]] = {}
        async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
            async for delta in source:
                if delta.text:
                    texts.setdefault(delta.choice, []).append(delta.text)
                yield delta
        whole = ["".join(parts) for parts in texts.values()]
        asyncio.get_running_loop().run_in_executor(None, self._count, whole, tenant)

    def _count(self, texts: list[str], tenant: str) -> None:
        try:
            guard = self._guard(tenant)
        except ElisionError as exc:
            self._metrics.failures.labels(type(exc).__name__).inc()
            return
        for text in texts if guard.observed else ():
            found = Counter(hit.target_id for hit in guard.scan(text))
            with self._lock:
                for target_id, n in found.items():
                    self._hits[tenant, target_id] += n
                    self._replies[tenant, target_id] += 1
            self._metrics.observed.inc(found.total())

    def _guard(self, tenant: str) -> Guard:
        active = self._register.active(tenant)
        kept = self._guards.get(tenant)
        if kept is not None and kept[0] is active:
            return kept[1]
        guard = Guard.compile(target for target in active if target.action == "observe")
        self._guards.put(tenant, (active, guard))
        return guard
