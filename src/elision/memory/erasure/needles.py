"""Keyed digests of windows: enough to find them again in a file, not enough to read them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np

from elision.memory.erasure.windows import SHORTEST, WIDTHS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.uint64]
    Places: TypeAlias = NDArray[np.int64]
    Bytes: TypeAlias = NDArray[np.uint8]

HEAD_BITS: Final = 24
_CLASS: Final = WIDTHS[0]
"""Longest part of a window that is hashed as words; the rest is for the digest."""
_ROW: Final = np.dtype([("n", "u1"), ("head", "<u4"), ("hash", "<u8"), ("mac", "<u8")])
_MASK: Final = 2**64 - 1


class Needles:
    """What is looked for in bytes; a value.

    A window is known by its length, the multilinear hash of its first 24 bytes under secret
    words (Carter and Wegman 1979, universal hashing), which numpy tries at every offset, and by
    eight bytes of keyed BLAKE2b of all of it, which settles the few offsets that are left.

    Args:
        key: 32 secret bytes, of this one erasure.
        windows: 8 to 255 bytes each.
    """

    def __init__(self, key: bytes, windows: Iterable[bytes] = ()) -> None:
        self._key = key
        secret = blake2b(b"words", key=key, digest_size=32).digest()
        self._words: Words = np.frombuffer(secret, dtype="<u8") | np.uint64(1)
        given = [self._row(window) for window in frozenset(windows)]
        self._arrange(np.array(given, dtype=_ROW))

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> Self:
        """Return the needles that `pack` wrote under the same key."""
        made = cls(key)
        made._arrange(np.frombuffer(data, dtype=_ROW))
        return made

    def pack(self) -> bytes:
        """Return them as bytes, 21 a window, in an order that tells nothing."""
        return self._rows.tobytes()

    def __len__(self) -> int:
        return len(self._rows)

    def __add__(self, other: Needles) -> Needles:
        """Return those of both, which were made under the same key."""
        both = np.unique(np.concatenate((self._rows, other._rows)))
        return Needles.unpack(self._key, both.tobytes())

    def only(self, numbers: Iterable[int]) -> Needles:
        """Return those that have these numbers; the first of them gets number 0, and so on."""
        chosen = np.array(sorted(numbers), dtype=np.int64)
        return Needles.unpack(self._key, self._rows[chosen].tobytes())

    def found_in(self, data: bytes) -> set[int]:
        """Return the numbers of those that stand in *data*."""
        if not len(self) or len(data) < SHORTEST:
            return set()
        view = np.frombuffer(data, dtype=np.uint8)
        places = self._candidates(view)
        return {number for n in self._hashes for number in self._settled(data, view, places, n)}

    def _candidates(self, view: Bytes) -> Places:
        """Return the offsets at which the first eight bytes are those of a needle."""
        found = []
        for phase in range(min(8, len(view) - SHORTEST + 1)):
            n_words = (len(view) - phase) // 8
            words = np.frombuffer(view.data, dtype="<u8", count=n_words, offset=phase)
            heads = (words * self._words[0] + self._words[3]) >> np.uint64(64 - self._bits)
            found.append(np.flatnonzero(self._heads[heads]) * 8 + phase)
        return np.concatenate(found)

    def _settled(self, data: bytes, view: Bytes, places: Places, n: int) -> set[int]:
        places = places[places + n <= len(data)]
        places = places[_among(self._hashed(view, places, n), self._hashes[n])]
        widths, found = self._widths[n], set[int]()
        for place in places.tolist():
            for width in widths:
                number = self._numbers.get((width, self._mac(data[place : place + width])))
                if number is not None:
                    found.add(number)
        return found

    def _hashed(self, view: Bytes, places: Places, n: int) -> Words:
        total = np.full(len(places), self._words[3])
        for word, offset in zip(self._words[:3], _offsets(n), strict=True):
            eight = view[(places + offset)[:, None] + np.arange(8)]
            total += np.ascontiguousarray(eight).view("<u8").ravel() * word
        return total

    def _row(self, window: bytes) -> tuple[int, int, int, int]:
        n = min(len(window), _CLASS)
        *words, last = self._words.tolist()
        products = [
            int.from_bytes(window[offset : offset + 8], "little") * word
            for word, offset in zip(words, _offsets(n), strict=True)
        ]
        head = (products[0] + last & _MASK) >> 64 - HEAD_BITS
        return len(window), head, sum(products) + last & _MASK, self._mac(window)

    def _mac(self, window: bytes) -> int:
        return int.from_bytes(blake2b(window, key=self._key, digest_size=8).digest(), "little")

    def _arrange(self, rows: NDArray[np.void]) -> None:
        self._rows = np.sort(rows, order="mac")
        lengths = np.minimum(self._rows["n"], _CLASS)
        self._hashes = {
            int(n): np.unique(self._rows["hash"][lengths == n]) for n in np.unique(lengths)
        }
        self._widths = {n: np.unique(self._rows["n"][lengths == n]).tolist() for n in self._hashes}
        self._bits = min(HEAD_BITS, max(10, len(rows).bit_length() + 6))  # 1 in 64 is set
        self._heads = np.zeros(1 << self._bits, dtype=np.bool_)
        self._heads[self._rows["head"] >> np.uint32(HEAD_BITS - self._bits)] = True
        named = zip(self._rows["n"].tolist(), self._rows["mac"].tolist(), strict=True)
        self._numbers = {name: number for number, name in enumerate(named)}


def _offsets(n: int) -> tuple[int, int, int]:
    """Return where the three words lie that cover the *n* bytes, 8 to 24."""
    return 0, min(8, n - 8), n - 8


def _among(values: Words, wanted: Words) -> NDArray[np.bool_]:
    """Return which of *values* are in *wanted*, which is sorted and not empty."""
    at = np.searchsorted(wanted, values)
    at[at == len(wanted)] = 0
    result: NDArray[np.bool_] = wanted[at] == values
    return result
