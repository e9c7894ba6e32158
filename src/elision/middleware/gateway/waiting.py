"""Work that nobody waits for any longer is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from elision.errors import BusyError
from elision.middleware.gateway.service import service_of
from elision.middleware.gateway.streaming import until_gone

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")


async def in_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do *work* unless its client leaves or the pipeline's deadline passes first.

    Raises:
        BusyError: If the deadline passed.
        ClientDisconnect: If the client left.
    """
    return await until_gone(request.receive, _within(service_of(request).pipeline.timeout_s, work))


async def _within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise BusyError("the deadline passed before all was done; send less") from None
