"""Several streams as one, in the order in which their pieces come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

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
    queue: asyncio.Queue[_T | _End] = asyncio.Queue(maxsize=1)
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        n_open = len(streams)
        while n_open:
            came = await queue.get()
            if not isinstance(came, _End):
                yield came
                continue
            n_open -= 1
            if came.error is not None:
                raise came.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _End:
    """The end of one stream."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


async def _pump(stream: AsyncGenerator[_T, None], queue: asyncio.Queue[_T | _End]) -> None:
    error = None
    try:
        async with aclosing(stream) as source:
            async for item in source:
                await queue.put(item)
    except Exception as exc:  # whatever it is, the listener is told
        error = exc
    await queue.put(_End(error))
