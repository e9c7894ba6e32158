"""A Bloom filter over keyed digests: says whether a text was put in, and holds none of it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import ceil, log
from typing import Final

from elision.errors import ConfigError

ERROR: Final = 1e-6
"""Share of the texts not put in that are taken for one that was (guard.md 2.3)."""
_BITS: Final = (1 << 62) - 1


class BloomFilter:
    """A set of texts that can be asked but not read. Immutable once it is built.

    Of N texts at error rate eps it takes m = -N ln eps / (ln 2)^2 bits and k = m/N ln 2 positions
    per text, the i-th being h1 + i h2 mod m of a digest under the tenant's key. Without the key
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
        Bloom 1970; double hashing: Kirsch and Mitzenmacher 2006. Ours: the 128 bits come from
        keyed BLAKE2b, which is a MAC by itself, in the place of HMAC-SHA256 (guard.md 1.6.9).
    """

    def __init__(self, texts: Iterable[str], *, key: bytes, error: float = ERROR) -> None:
        if not 0 < error < 1:
            raise ConfigError(f"the error rate is {error}; it must lie between 0 and 1")
        if not 1 <= len(key) <= 64:
            raise ConfigError(f"the key has {len(key)} bytes; it must have 1 to 64")
        self._keyed = blake2b(key=key, digest_size=16)
        digests = list(map(self._digest, texts))
        self.n_texts = len(digests)
        self.n_bits = max(8, ceil(-self.n_texts * log(error) / log(2) ** 2))
        self.n_hashes = max(1, round(self.n_bits / max(1, self.n_texts) * log(2)))
        self._bits = bytearray((self.n_bits + 7) // 8)
        bits, n_bits = self._bits, self.n_bits
        for at, step in digests:
            for bit in range(at, at + self.n_hashes * step, step):
                bits[(bit % n_bits) >> 3] |= 1 << (bit % n_bits & 7)

    def __repr__(self) -> str:
        return f"BloomFilter({self.n_texts} texts, {self.n_bits} bits)"

    def __len__(self) -> int:
        """Return how many texts were put in."""
        return self.n_texts

    def __contains__(self, text: str) -> bool:
        """Return False if *text* was not put in, up to the error rate; True if it was."""
        if not self.n_texts:
            return False
        at, step = self._digest(text)
        bits, n_bits = self._bits, self.n_bits
        for bit in range(at, at + self.n_hashes * step, step):
            if not bits[(bit % n_bits) >> 3] & 1 << (bit % n_bits & 7):
                return False
        return True

    @property
    def n_bytes(self) -> int:
        """Memory of the bits."""
        return len(self._bits)

    def _digest(self, text: str) -> tuple[int, int]:
        """Return h1 and h2, 62 bits each; h2 is odd."""
        hashed = self._keyed.copy()
        hashed.update(text.encode("utf-8", "surrogatepass"))
        both = int.from_bytes(hashed.digest(), "little")
        return both & _BITS, (both >> 64) & _BITS | 1
