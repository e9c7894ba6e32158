"""Masks under the salt of those who share a secret: one digest for all who forbid the same."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from elision.contract import Masks
from elision.errors import GuardError
from elision.guards.carried import Carried

_KEPT: Final = 64


class Salting:
    """Salts masks anew, each once. Lives as long as its engine.

    Whoever compiled them drew a salt of his own, so a server would have to learn the same masks
    again for each gateway, tenant and key.

    Args:
        key: What all share who share the servers; else this process's own.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key.hex()
        self._kept: OrderedDict[tuple[str, str], Masks] = OrderedDict()

    async def salted(self, masks: Masks, tenant: str) -> Masks:
        """Return *masks* of *tenant* under the shared salt; as they are if they have none.

        Raises:
            GuardError: If they cannot be read.
        """
        place = (tenant, masks.digest)
        if place not in self._kept:
            if not isinstance(masks, Carried):
                return masks
            self._kept[place] = await self._again(masks)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place]

    async def _again(self, masks: Carried) -> Carried:
        try:
            # Not for the event loop: it reads them whole.
            return await asyncio.to_thread(masks.salted, self._key)
        except (LookupError, TypeError, ValueError):
            fault = GuardError("the masks that must act cannot be read; nothing was asked")
        raise fault

    def erase(self, tenant: str) -> int:
        """Drop what is kept of *tenant*; return how many."""
        mine = [place for place in self._kept if place[0] == tenant]
        for place in mine:
            del self._kept[place]
        return len(mine)
