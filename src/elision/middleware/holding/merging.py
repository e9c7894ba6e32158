"""Several streams as one, in the order in which their pieces come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")


async def merged(streams: Sequence[AsyncGenerator[_T, None]]) -> AsyncGenerator[_T, None]:
    """Yield what *streams* yield, as it comes; each waits until its last piece has been taken.

    All are closed on every way out: at the end, when the listener leaves, and when one of them
    raises, which ends them all.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as source:
            async for item in source:
                yield item
        return
    queue: asyncio.Queue[_Came[_T]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        n_open = len(streams)
        while n_open:
            came = await queue.get()
            if came.error is not None:
                raise came.error
            n_open -= not came.items
            for item in came.items:
                yield item
            came.taken.release()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Came(NamedTuple, Generic[_T]):
    """A piece of one stream; or its end, if there is none in it."""

    items: tuple[_T, ...]
    taken: asyncio.Semaphore
    error: Exception | None = None


async def _pump(stream: AsyncGenerator[_T, None], queue: asyncio.Queue[_Came[_T]]) -> None:
    taken, error = asyncio.Semaphore(0), None
    try:
        async with aclosing(stream) as source:
            async for item in source:
                queue.put_nowait(_Came((item,), taken))
                await taken.acquire()
    except Exception as exc:  # whatever it is, the listener is told
        error = exc
    queue.put_nowait(_Came((), taken, error))
