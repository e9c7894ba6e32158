"""Replicas asked what they can do before the first request; one that has told is enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from elision.errors import ElisionError
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.sharing import Shared

MOST_S: Final = 30.0
"""Seconds that a request waits for it at most: a first proof on a CPU takes about ten."""
PAUSE_S: Final = 30.0
"""Seconds in which no other request waits, once one did in vain; as `Probing` has it."""


class Meeting:
    """Has replicas prove themselves and tell what they offer. Lives until `aclose`.

    Args:
        replicas: Whom; those of weight 0 are left alone.
        max_age_s: Seconds after which what a replica was seen to do counts no longer.
    """

    def __init__(self, replicas: Sequence[Replica], *, max_age_s: float) -> None:
        self._replicas = replicas
        self._max_age_s = max_age_s
        self._shared = Shared()
        self._not_before = 0.0

    async def ask(self) -> None:
        """Return once one was seen, all have failed, or it took too long; the others go on."""
        if self._is_met() or time.monotonic() < self._not_before:
            return
        asked = [one for one in self._replicas if one.weight > 0]
        pending = {self._shared.begin(one.base_url, partial(self._meet, one)) for one in asked}
        until = time.monotonic() + MOST_S
        while pending and not self._is_met() and time.monotonic() < until:
            left_s = until - time.monotonic()
            _, pending = await asyncio.wait(
                pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
        if pending and not self._is_met():
            self._pause()

    async def aclose(self) -> None:
        """Call off what is being asked."""
        await self._shared.aclose()

    def _is_met(self) -> bool:
        return any(one.is_seen and one.weight > 0 for one in self._replicas)

    def _pause(self) -> None:
        self._not_before = time.monotonic() + PAUSE_S

    async def _meet(self, replica: Replica) -> None:
        try:
            await replica.meet(max_age_s=self._max_age_s)
        except TimeoutError:
            self._pause()
        except ElisionError:
            return  # who does not answer is asked again by whoever comes next
