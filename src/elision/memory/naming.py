"""Ids of records: unique everywhere, and in the order in which they were given."""

from __future__ import annotations

import re
import secrets
from threading import Lock
from typing import Final

ID: Final = re.compile(r"[a-z0-9_]{1,24}")
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuv"
_CHANCE: Final = 60
"""Bits beyond the moment."""
_STEP: Final = 32
"""Bits of the random step to the next id of the same millisecond."""


class Names:
    """Gives ids; those of one process rise even within a millisecond. Thread-safe."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = Lock()

    def new(self, now: float) -> str:
        """Return ``m_``, ten digits of milliseconds and twelve of chance (60 bits)."""
        with self._lock:
            fresh = int(now * 1000) << _CHANCE | secrets.randbits(_CHANCE)
            later = self._last + 1 + secrets.randbits(_STEP)
            self._last = fresh if fresh >> _CHANCE > self._last >> _CHANCE else later
            return "m_" + _base32(self._last, 22)


def _base32(number: int, n_digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * n & 31] for n in reversed(range(n_digits)))
