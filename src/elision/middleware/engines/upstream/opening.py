"""A token loop, opened when somebody first needs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from elision.settings import Settings

if TYPE_CHECKING:
    from elision.middleware.engines.remote import RemoteEngine
    from elision.middleware.engines.upstream.looping import TokenLoop


class Opening:
    """Opens a token loop once, for everybody who waits. Lives as long as the engine.

    What fails is tried again by the next who asks; that there is none is remembered.

    Args:
        engine: Over which.
        tokenizer: The upstream's: alias, hub id or folder; without one there is no loop.
        settings: Cache and limits; None reads them when it is opened.
    """

    def __init__(
        self, engine: RemoteEngine, tokenizer: str | None, settings: Settings | None
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._settings = settings
        self._loop: TokenLoop | None = None
        self._is_known = tokenizer is None
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

    async def _begin(self) -> TokenLoop | None:
        # Not before: torch is a guest, and most upstreams are never looped over.
        from elision.middleware.engines.upstream.looping import open_loop

        assert self._tokenizer is not None
        await self._engine.probe()
        settings = self._settings or Settings()
        return await open_loop(self._engine, self._tokenizer, settings, self._engine.offers)
