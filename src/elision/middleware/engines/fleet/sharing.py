"""Work that several wait for and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")

_Place: TypeAlias = tuple[asyncio.AbstractEventLoop, Hashable]


class Shared:
    """Has each piece of work done once for everybody who waits for it. Lives until `aclose`.

    Whoever stops waiting calls nothing off: the others still wait. Each event loop does its own.
    """

    def __init__(self) -> None:
        self._running: dict[_Place, asyncio.Task[Any]] = {}

    async def do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what *work* returns; begun unless it is under way for *key*.

        Raises:
            Exception: What *work* raises, for all who wait.
        """
        return cast("T", await asyncio.shield(self.begin(key, work)))

    def begin(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the task of *work*, which goes on whether or not anybody waits; see `do`."""
        place = (asyncio.get_running_loop(), key)
        if (task := self._running.get(place)) is None:
            task = asyncio.ensure_future(work())
            self._running[place] = task
            task.add_done_callback(lambda done: self._ended(place, done))
        return task

    async def aclose(self) -> None:
        """Call off what is under way on this event loop."""
        loop = asyncio.get_running_loop()
        mine = [task for (where, _), task in self._running.items() if where is loop]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)

    def _ended(self, place: _Place, task: asyncio.Task[Any]) -> None:
        self._running.pop(place, None)
        if not task.cancelled():
            task.exception()  # read, so that nobody complains where all have stopped waiting
