"""A server's answer handed on as it comes: chosen like any other request's, nothing acts on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from operator import attrgetter
from typing import Any, Final

import aiohttp

from elision.errors import ElisionError
from elision.middleware.engines.fleet.balancing import ranked, tried_first
from elision.middleware.engines.fleet.failover import Failover
from elision.middleware.engines.fleet.ordering import check_xargs, salt_of, wire
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.upstream.relaying import Relayed

_ROUTES: Final[Mapping[str, str]] = {"chat": "chat/completions", "text": "completions"}


class Relays:
    """Hands on the answers of several servers. Lives as long as their engine.

    Args:
        replicas: The servers.
        engine: Whose, for errors.
        key: Keys the salts of prefix caches.
    """

    def __init__(self, replicas: Sequence[Replica], *, engine: str, key: bytes) -> None:
        self._replicas = replicas
        self._engine = engine
        self._key = key

    def relay(
        self,
        body: Mapping[str, Any],
        *,
        kind: str,
        stream: bool,
        timeout_s: float | None,
        tenant: str | None,
    ) -> Relayed:
        """See `VllmEngine.relay`."""
        check_xargs(body)
        whose = secrets.token_hex(16) if tenant is None else tenant
        salt = salt_of(whose, body.get("cache_salt"), self._key)
        ask = partial(self._lent, {**body, "cache_salt": salt}, _ROUTES[kind])
        return Relayed(ask, stream=stream, timeout_s=timeout_s)

    @asynccontextmanager
    async def _lent(
        self, body: Mapping[str, Any], route: str, *, deadline: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, body, route, deadline)

    async def _opened(
        self, stack: AsyncExitStack, body: Mapping[str, Any], route: str, deadline: float | None
    ) -> aiohttp.ClientResponse:
        tries = Failover(self._engine)
        order = ranked(self._replicas, str(body["cache_salt"]).encode())
        for replica in tried_first(order, attrgetter("known")):
            try:
                mine = await self._addressed(body, replica)
                with tries.sending():
                    return await stack.enter_async_context(replica.lent(mine, route, deadline))
            except ElisionError as exc:
                if not tries.moves_on(exc):
                    raise
        raise tries.reason()

    async def _addressed(self, body: Mapping[str, Any], replica: Replica) -> Mapping[str, Any]:
        """Return *body* with an order that does nothing, if *replica* takes none without."""
        if not await replica.requires_order():
            return body
        own = body.get("vllm_xargs") or {}
        return {**body, "vllm_xargs": {**own, **wire(Order(), replica.secret)}}
