"""Replicas looked after: greeted every few seconds, tried again every few minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from elision.errors import ElisionError
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.sharing import Shared


class Watch:
    """Looks after replicas in the background, on the loop that first needs them.

    A vLLM takes longer to start again than lies between two greetings, so one that was replaced is
    missed in between, and in doubt from then on.

    Args:
        replicas: Whom.
        greet_every_s: Seconds between greetings.
        prove_every_s: Seconds after which it is shown again that masks act.
    """

    def __init__(
        self, replicas: Sequence[Replica], *, greet_every_s: float, prove_every_s: float
    ) -> None:
        self._replicas = replicas
        self._greet_every_s = greet_every_s
        self._prove_every_s = prove_every_s
        self._tasks: list[asyncio.Task[None]] = []
        self._shared = Shared()

    def ensure(self) -> None:
        """Begin, unless it is under way."""
        if not any(_is_alive(task) for task in self._tasks):
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._greet(one)) for one in self._replicas]

    async def aclose(self) -> None:
        """End it."""
        tasks, self._tasks = self._tasks, []
        mine = [task for task in tasks if task.get_loop() is asyncio.get_running_loop()]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)
        await self._shared.aclose()

    async def _greet(self, replica: Replica) -> None:
        """Greet one, whatever the others do; it goes on while it is tried."""
        while True:
            await asyncio.sleep(self._greet_every_s)
            if await replica.greet() and replica.weight > 0 and self._is_due(replica):
                self._shared.begin(replica.base_url, partial(self._meet, replica))

    def _is_due(self, replica: Replica) -> bool:
        proof = replica.proof
        is_old = proof is None or time.monotonic() - proof.at >= self._prove_every_s
        return is_old or not replica.is_seen

    async def _meet(self, replica: Replica) -> None:
        # What cannot be asked is unproved, and greeted again in a while.
        with suppress(ElisionError):
            await replica.meet(max_age_s=self._prove_every_s)


def _is_alive(task: asyncio.Task[None]) -> bool:
    return not task.done() and not task.get_loop().is_closed()
