"""A bucket that fills steadily: what may be used in a minute, with bursts of a minute's worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_MINUTE_NS: Final = 60_000_000_000
"""Parts that one is counted in: what comes in a nanosecond is then a whole number of them."""


class Bucket:
    """Holds up to *per_minute*, is full at first, and fills by as much in a minute.

    In whole numbers, so that what is taken and given back leaves no trace. In any stretch of time,
    what was taken less what was given back is at most *per_minute* and what came in meanwhile.
    Not thread-safe: it belongs to one event loop.

    Args:
        per_minute: At least 1.
        clock: Nanoseconds that never go back.

    Attributes:
        limit: *per_minute*.
    """

    __slots__ = ("_at", "_clock", "_level", "limit")

    def __init__(self, per_minute: int, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.limit = per_minute
        self._clock = clock
        self._level = per_minute * _MINUTE_NS
        self._at = clock()

    @property
    def left(self) -> int:
        """What could be taken now; 0 while something is owed."""
        self._fill()
        return max(0, self._level // _MINUTE_NS)

    def take(self, n: int) -> bool:
        """Take *n* if they are there; return whether they were."""
        self._fill()
        if n * _MINUTE_NS > self._level:
            return False
        self._level -= n * _MINUTE_NS
        return True

    def give(self, n: int) -> None:
        """Give back *n* that were taken; what the bucket no longer has room for is gone."""
        self._fill()
        self._level = min(self._level + n * _MINUTE_NS, self.limit * _MINUTE_NS)

    def owe(self, n: int) -> None:
        """Take *n* that were used already, there or not; until they came in nothing is left."""
        self._fill()
        self._level -= n * _MINUTE_NS

    def wait_ns(self, n: int) -> int:
        """Return after how long *n*, at most the limit, are there if nobody takes any."""
        self._fill()
        return max(0, -((self._level - n * _MINUTE_NS) // self.limit))

    def _fill(self) -> None:
        now = self._clock()
        if now > self._at:
            came = (now - self._at) * self.limit
            self._level = min(self._level + came, self.limit * _MINUTE_NS)
            self._at = now
