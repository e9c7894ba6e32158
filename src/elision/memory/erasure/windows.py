"""Windows of what was erased, by which copies of it are looked for in files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from elision.memory.index.vectors import WIDTH

WIDTHS: Final = (24, 48, 96)
"""Bytes of a window: at the start, in the middle and at the end of a text (atlas_memory.md 5.8)."""
SHORTEST: Final = 8
"""Bytes below which a text is not looked for: 5 random bytes stand in 30 MB once in 36,000 tries,
8 of them never."""
_DISTINCT: Final = 4
"""Different bytes of a window that says anything; runs of zeros and dashes are everywhere."""


def spellings(text: str) -> frozenset[bytes]:
    """Return *text* as files may hold it: UTF-8, UTF-16 of both orders, escaped in JSON."""
    coded = (text.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be"))
    quoted = (json.dumps(text, ensure_ascii=only).encode()[1:-1] for only in (True, False))
    return frozenset((*coded, *quoted))


def of_text(text: str) -> frozenset[bytes]:
    """Return the windows of *text* in all its `spellings`; none if it is too short to tell."""
    return frozenset(window for data in spellings(text) for window in _windows(data))


def of_vector(data: bytes) -> frozenset[bytes]:
    """Return the windows of an embedding's bytes, the densest one among them.

    A hashed embedding is mostly zeros, so that its start and middle alone may say nothing.
    """
    return frozenset((*_windows(data), *filter(_tells, (_densest(data),))))


def _windows(data: bytes) -> Iterator[bytes]:
    n = len(data)
    if SHORTEST <= n < WIDTHS[0]:
        yield from filter(_tells, (data,))
    for width in (w for w in WIDTHS if w <= n):
        starts = {0, (n - width) // 2, n - width}
        yield from filter(_tells, (data[start : start + width] for start in starts))


def _tells(window: bytes) -> bool:
    return len(window) >= SHORTEST and len(set(window)) >= _DISTINCT


def _densest(data: bytes) -> bytes:
    import numpy as np

    full = np.frombuffer(data, dtype="<u4") != 0
    width = WIDTHS[-1] // WIDTH
    if len(full) <= width:
        return data[: WIDTHS[-1]] if len(data) >= WIDTHS[0] else b""
    counts = np.convolve(full, np.ones(width, dtype=np.int64), mode="valid")
    start = int(counts.argmax()) * WIDTH
    return data[start : start + WIDTHS[-1]]
