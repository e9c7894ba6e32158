"""Waiting for what comes about soon, on a machine that may stall meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 0.002
"""Between two looks."""
_STALL_S: Final = 0.02
"""What a look counts at the most, however late it comes: the rest is the machine's, not ours."""


def waited_s(done: Callable[[], object], *, most_s: float = 10.0) -> float:
    """Wait until *done* is true; return for how many seconds, the machine's stalls left out.

    Raises:
        TimeoutError: If it is not within *most_s*, counted likewise.
    """
    waited = 0.0
    while not done():
        begun = time.monotonic()
        time.sleep(_LOOK_S)
        waited = _later(waited, begun, most_s)
    return waited


async def awaited_s(done: Callable[[], object], *, most_s: float = 10.0) -> float:
    """Async twin of `waited_s`."""
    waited = 0.0
    while not done():
        begun = time.monotonic()
        await asyncio.sleep(_LOOK_S)
        waited = _later(waited, begun, most_s)
    return waited


def _later(waited: float, begun: float, most_s: float) -> float:
    waited += min(time.monotonic() - begun, _STALL_S)
    if waited > most_s:
        raise TimeoutError(f"it did not come about within {most_s} s")
    return waited
