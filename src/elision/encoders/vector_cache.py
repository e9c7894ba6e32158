"""Vectors of texts that were embedded before; the texts themselves are not kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]

Digest: TypeAlias = bytes

ENTRIES = 50_000
"""Vectors kept by default: 384 float32 numbers, their key and its place come to about 2 kB, so
some 100 MB. Compiled gates hold the vectors of their probes themselves; what repeats here are
system texts and the earlier turns of conversations."""


def digest(text: str) -> Digest:
    """Return what stands for *text*: 128 bits, from which it cannot be read back."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class VectorCache:
    """The vectors used last, by tenant and digest; any thread may call.

    Args:
        entries: Most vectors over all tenants; the one unused longest goes first.
    """

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._vectors: OrderedDict[tuple[str, Digest], Vector] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, tenant: str, keys: Sequence[Digest]) -> list[Vector | None]:
        """Return *tenant*'s vectors for *keys*; None where there is none."""
        with self._lock:
            return [self._get((tenant, key)) for key in keys]

    def _get(self, key: tuple[str, Digest]) -> Vector | None:
        found = self._vectors.get(key)
        if found is not None:
            self._vectors.move_to_end(key)
        return found

    def put(self, tenant: str, keys: Sequence[Digest], vectors: Sequence[Vector]) -> None:
        """Keep *vectors* for *tenant*; they must not be written to any more."""
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                self._vectors[tenant, key] = vector
                self._vectors.move_to_end((tenant, key))
            while len(self._vectors) > self._entries:
                self._vectors.popitem(last=False)

    def erase(self, tenant: str) -> int:
        """Drop all of *tenant*'s vectors and return how many there were."""
        with self._lock:
            own = [key for key in self._vectors if key[0] == tenant]
            for key in own:
                del self._vectors[key]
        return len(own)
