"""Compiled enforcement, one per tenant, epoch and scope."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from elision.guards.scope import EVERYWHERE
from elision.middleware.enforcement import Enforcement

if TYPE_CHECKING:
    from elision.contract import Epoch
    from elision.encoders import Encoder
    from elision.guards.register.register import Register
    from elision.guards.targets import ForgetTarget

MAX_GUARDS = 64
"""Compiled enforcements kept; the least recently used goes first."""

_Place: TypeAlias = tuple[str, str, str]
"""Tenant, model, key; the last two empty unless some target of the tenant has a scope."""


class Guards:
    """Compiles the register's active targets and keeps the result until the epoch changes.

    Args:
        register: Where targets are kept.
        encoder: Loads the sentence encoder at first need; None if there is none.
    """

    def __init__(self, register: Register, encoder: Callable[[], Encoder] | None = None) -> None:
        self._register = register
        self._encoder = encoder
        self._compiled: OrderedDict[_Place, Enforcement] = OrderedDict()
        self._scoped: dict[str, tuple[Epoch, bool]] = {}
        self._locks: dict[_Place, asyncio.Lock] = {}

    async def current(self, tenant: str, *, model: str = "", key: str = "") -> Enforcement:
        """Return what is enforced for *tenant* at its present epoch, compiling it if it changed.

        Requests that arrive while it compiles wait for the one compilation. The event loop does
        not: whatever takes time runs on other threads.

        Args:
            tenant: Whose register.
            model: Alias of the model that is asked, for targets with a scope.
            key: Name of the caller's key, likewise.
        """
        epoch = await self.epoch(tenant)
        place = await self._place(tenant, epoch, model, key)
        found = self._compiled.get(place)
        if found is None or found.epoch != epoch:
            async with self._locks.setdefault(place, asyncio.Lock()):
                found = self._compiled.get(place)
                if found is None or found.epoch != epoch:
                    found = await asyncio.to_thread(self._compile, place)
                    self._keep(place, found)
        if place in self._compiled:  # a purge may have dropped it meanwhile
            self._compiled.move_to_end(place)
        return found

    async def epoch(self, tenant: str) -> Epoch:
        """Return the tenant's present epoch; the event loop never waits for it."""
        # A hop to another thread costs ten times what a look into a local file does.
        epoch = self._register.epoch_at_once(tenant)
        return await asyncio.to_thread(self._register.epoch, tenant) if epoch is None else epoch

    def drop(self, tenant: str) -> int:
        """Forget what was compiled for *tenant*; return how many enforcements that were."""
        gone = [place for place in (*self._compiled,) if place[0] == tenant]
        for place in gone:
            self._compiled.pop(place, None)
        return len(gone)

    async def _place(self, tenant: str, epoch: Epoch, model: str, key: str) -> _Place:
        known = self._scoped.get(tenant)
        if known is None or known[0] != epoch:
            known = epoch, await asyncio.to_thread(self._is_scoped, tenant)
            self._scoped[tenant] = known
        return (tenant, model, key) if known[1] else (tenant, "", "")

    def _is_scoped(self, tenant: str) -> bool:
        return any(t.scope != EVERYWHERE for t in self._register.active(tenant))

    def _compile(self, place: _Place) -> Enforcement:
        tenant, model, key = place
        epoch = self._register.epoch(tenant)
        targets: list[ForgetTarget] = [
            t for t in self._register.active(tenant) if t.scope.covers(model=model, key=key)
        ]
        previous = self._compiled.get(place)
        return Enforcement(
            targets, tenant=tenant, epoch=epoch, encoder=self._encoder, previous=previous
        )

    def _keep(self, place: _Place, made: Enforcement) -> None:
        self._compiled[place] = made
        while len(self._compiled) > MAX_GUARDS:
            gone, _ = self._compiled.popitem(last=False)
            self._locks.pop(gone, None)
            self._scoped.pop(gone[0], None)
