"""A sentence encoder that needs no model: for tests that must be fast and always the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING
from zlib import crc32

from elision.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class BagEncoder:
    """Hashed words and character trigrams as unit vectors; texts that share words are near.

    It knows no synonyms. Work is done at once, on the caller's thread.

    Args:
        dim: Numbers per vector.

    Attributes:
        name: ``bag``.
        dim: Numbers per vector.
        n_embedded: Texts embedded so far, repeated ones included.
    """

    def __init__(self, dim: int = 256) -> None:
        self.name = "bag"
        self.dim = dim
        self.n_embedded = 0
        self._closed = False

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return one unit vector per text; a text without words is the first axis."""
        future: Future[NDArray[np.float32]] = Future()
        if self._closed:
            future.set_exception(EngineError("the encoder 'bag' is closed"))
            return future
        self.n_embedded += len(texts)
        future.set_result(self._vectors(texts))
        return future

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        bags = np.zeros((len(texts), self.dim), dtype=np.float32)
        for bag, text in zip(bags, texts, strict=True):
            for feature, weight in _features(text):
                bag[crc32(feature.encode("utf-8", "surrogatepass")) % self.dim] += weight
            if not bag.any():
                bag[0] = 1
        found: NDArray[np.float32] = bags / np.linalg.norm(bags, axis=1, keepdims=True)
        return found

    def close(self) -> None:
        """Refuse further texts."""
        self._closed = True


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(text.lower()):
        yield word, 1.0
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield padded[start : start + 3], 0.3
