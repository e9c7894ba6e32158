"""A Bloom filter over keyed digests: says whether a text was put in, and holds none of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from math import ceil, log, log2
from typing import Final

from elision.errors import ConfigError

ERROR: Final = 1e-6
"""Share of the texts not put in that are taken for one that was (guard.md 2.3)."""
_BLOCK: Final = 64
"""Bytes of one digest: enough for twenty positions in a filter of 33 million bits."""


class BloomFilter:
    """A set of texts that can be asked but not read. Immutable once it is built.

    Of N texts at error rate eps it takes m = -N ln eps / (ln 2)^2 bits and k = m/N ln 2 positions
    per text: the first k digits, in base m, of a digest under the tenant's key. Without the key
    nobody can try texts against it.

    Args:
        texts: What to put in; texts that occur twice are counted twice in N.
        key: Of the digests, 1 to 64 bytes.
        error: See `ERROR`, in (0, 1).

    Attributes:
        n_texts: Texts put in.
        n_bits: m.
        n_hashes: k.

    Raises:
        ConfigError: If the key or the error rate is out of range.

    Source:
        Bloom 1970. Ours: the positions come from keyed BLAKE2b, which is a MAC by itself, in the
        place of HMAC-SHA256 (guard.md 1.6.9); and they are independent. Two numbers, taken k times
        with a stride (Kirsch and Mitzenmacher 2006), do for large m only: in the 600 bits of one
        sentence one stride in 600 is none at all, and one text in a thousand was taken for another.
    """

    def __init__(self, texts: Iterable[str], *, key: bytes, error: float = ERROR) -> None:
        if not 0 < error < 1:
            raise ConfigError(f"the error rate is {error}; it must lie between 0 and 1")
        if not 1 <= len(key) <= 64:
            raise ConfigError(f"the key has {len(key)} bytes; it must have 1 to 64")
        self._keyed = blake2b(key=key, digest_size=_BLOCK)
        kept = list(texts)
        self.n_texts = len(kept)
        self.n_bits = max(8, ceil(-self.n_texts * log(error) / log(2) ** 2))
        self.n_hashes = max(1, round(self.n_bits / max(1, self.n_texts) * log(2)))
        # 64 bits to spare, so that the last digit is as even as the first
        self._n_blocks = ceil((self.n_hashes * log2(self.n_bits) + 64) / (8 * _BLOCK))
        self._bits = bytearray((self.n_bits + 7) // 8)
        for text in kept:
            for bit in self._positions(text):
                self._bits[bit >> 3] |= 1 << (bit & 7)

    def __repr__(self) -> str:
        return f"BloomFilter({self.n_texts} texts, {self.n_bits} bits)"

    def __len__(self) -> int:
        """Return how many texts were put in."""
        return self.n_texts

    def __contains__(self, text: str) -> bool:
        """Return False if *text* was not put in, up to the error rate; True if it was."""
        if not self.n_texts:
            return False
        bits = self._bits
        return all(bits[bit >> 3] & 1 << (bit & 7) for bit in self._positions(text))

    @property
    def n_bytes(self) -> int:
        """Memory of the bits."""
        return len(self._bits)

    def _positions(self, text: str) -> Iterator[int]:
        """Yield the k positions of *text*, each as likely as any other, whatever m is."""
        hashed = self._keyed.copy()
        hashed.update(text.encode("utf-8", "surrogatepass"))
        digits = int.from_bytes(hashed.digest(), "little")
        for _ in range(1, self._n_blocks):
            hashed.update(b"\xff")  # no text in UTF-8 holds it
            digits = digits << 8 * _BLOCK | int.from_bytes(hashed.digest(), "little")
        n_bits = self.n_bits
        for _ in range(self.n_hashes):
            digits, bit = divmod(digits, n_bits)
            yield bit
