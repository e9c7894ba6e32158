"""A bounded memory of what was asked for lately."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """Remembers what was asked for lately; the least recently used goes first.

    Args:
        entries: Values remembered at most.
        limit_bytes: What they may hold together.
    """

    def __init__(self, *, entries: int, limit_bytes: int = 1 << 62) -> None:
        self._entries = entries
        self._limit = limit_bytes
        self._kept: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: _K) -> _V | None:
        """Return what is remembered under *key*; None if nothing is."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept[0]

    def put(self, key: _K, value: _V, *, n_bytes: int = 0) -> None:
        """Remember *value*, which holds about *n_bytes*."""
        with self._lock:
            self._bytes -= self._kept.pop(key, (value, 0))[1]
            self._kept[key] = (value, n_bytes)
            self._bytes += n_bytes
            while len(self._kept) > self._entries or self._bytes > self._limit:
                self._bytes -= self._kept.popitem(last=False)[1][1]
