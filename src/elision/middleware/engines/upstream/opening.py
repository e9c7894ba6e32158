"""A token loop, opened when somebody first needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elision.middleware.engines.upstream.looping import TokenLoop


class Opening:
    """Opens a token loop once, for everybody who waits. Lives as long as the engine.

    What fails is tried again by the next who asks; that there is none is remembered.

    Args:
        begin: Opens it; returns None if there is none.
    """

    def __init__(self, begin: Callable[[], Awaitable[TokenLoop | None]]) -> None:
        self._begin = begin
        self._loop: TokenLoop | None = None
        self._is_known = False
        self._running: asyncio.Task[None] | None = None

    async def ask(self) -> TokenLoop | None:
        """Return the loop; None if there is none. Cancelling a caller does not call it off.

        Raises:
            ElisionError: If it could not be opened.
        """
        if not self._is_known:
            loop = asyncio.get_running_loop()
            if self._running is None or self._running.get_loop() is not loop:
                self._running = loop.create_task(self._run())
            await asyncio.shield(self._running)
        return self._loop

    async def aclose(self) -> None:
        """Call off what is being opened on this event loop, and close what is open."""
        running, self._running = self._running, None
        if running is not None and running.get_loop() is asyncio.get_running_loop():
            running.cancel()
            await asyncio.wait([running])
        if self._loop is not None:
            await self._loop.aclose()

    async def _run(self) -> None:
        try:
            found = await self._begin()
        finally:
            self._running = None
        if self._is_known and found is not None:  # opened on another event loop meanwhile
            await found.aclose()
        elif not self._is_known:
            self._loop, self._is_known = found, True
