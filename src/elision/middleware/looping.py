"""An event loop on a thread of its own, and how what streams there is read from elsewhere."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PATIENCE_S: Final = 5.0
"""How long tasks that were cancelled may take to end."""


class LoopThread:
    """An event loop on a thread of its own: the one loop a client's engines live on.

    Attributes:
        open: Whether it takes work.
    """

    def __init__(self) -> None:
        self.open = True
        self._loop = asyncio.new_event_loop()
        self._readings: dict[AsyncGenerator[Any, None], asyncio.Lock] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="elision-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* there and wait for it; an interrupt ends it.

        Raises:
            RuntimeError: If the loop is closed, or this is its thread, which would wait for itself.
        """
        if self._is_here():
            work.close()
            raise RuntimeError("a blocking call was made on the client's own loop")
        return _result(self._submit(work))

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* there and wait for it without blocking the caller's loop."""
        return await asyncio.wrap_future(self._submit(work))

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield what *items* yields there; left early, it is closed before this returns.

        Collected on the loop's own thread it is closed without waiting: only that thread can.

        Args:
            items: None is no item.
        """
        turn = self._readings[items] = asyncio.Lock()
        try:
            while (item := self.run(_next(items, turn))) is not None:
                yield item
        finally:
            if self.open and self._is_here():
                self._submit(self._close(items))
            elif self.open and not sys.is_finalizing():
                self.run(self._close(items))

    async def aiterate(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Async twin of `iterate`; cancelled, it raises that once *items* is closed."""
        turn = self._readings[items] = asyncio.Lock()
        try:
            while (item := await self.arun(_next(items, turn))) is not None:
                yield item
        finally:
            if self.open:
                await self.arun(self._close(items))

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Close what is being read, do *last*, cancel what is left; end the loop and its thread."""
        self.open = False
        try:
            _result(asyncio.run_coroutine_threadsafe(self._wind_up(last), self._loop))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=_PATIENCE_S)
            if not self._thread.is_alive():
                self._loop.close()

    # --- inside ----------------------------------------------------------------------------------

    def _is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if not self.open:
            work.close()
            raise RuntimeError("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _close(self, items: AsyncGenerator[Any, None]) -> None:
        """Close *items* once the pull that was cancelled has ended; who waits may be cancelled."""
        if (turn := self._readings.pop(items, None)) is None:
            return
        closing = asyncio.ensure_future(_closed(items, turn))
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        await asyncio.shield(closing)

    async def _wind_up(self, last: Coroutine[Any, Any, None]) -> None:
        idle = [items for items, turn in list(self._readings.items()) if not turn.locked()]
        await asyncio.gather(*map(self._close, idle), return_exceptions=True)
        try:
            await last
        finally:
            await _cancel_others()
            await self._loop.shutdown_asyncgens()


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


async def _next(items: AsyncGenerator[T, None], turn: asyncio.Lock) -> T | None:
    async with turn:
        return await anext(items, None)


async def _closed(items: AsyncGenerator[Any, None], turn: asyncio.Lock) -> None:
    async with turn:
        await items.aclose()


async def _cancel_others() -> None:
    """Cancel every other task and wait for them: a loop that stops must leave none halfway."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*left, return_exceptions=True)
