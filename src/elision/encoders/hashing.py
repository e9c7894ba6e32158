"""An encoder that needs no model: what texts share in spelling, not in sense."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from elision.errors import ConfigError, EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD: Final = re.compile(r"\w+")
_GRAMS: Final = (3, 4, 5)
_WORD_WEIGHT: Final = 3.0
"""What a word counts beside one run of its letters: it has a dozen of them."""


class HashingEncoder:
    """Hashed words, pairs of words and runs of 3 to 5 letters, as unit vectors.

    For a store without a model, and for tests. It knows no synonyms: two texts are near if they
    share words or parts of words. The same text has the same vector everywhere. Work is done at
    once, on the caller's thread, and nothing is kept.

    Args:
        dim: Numbers per vector, at least 1.

    Raises:
        ConfigError: If *dim* is less.

    Source:
        Weinberger et al. 2009 (arXiv 0902.2206): the feature's digest gives place and sign, so
        that collisions cancel out in the mean.
    """

    def __init__(self, dim: int = 384) -> None:
        if dim < 1:
            raise ConfigError(f"dim is {dim}; it must be at least 1")
        self.name = f"hashing-{dim}"
        self.dim = dim
        self._closed = False

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return one unit vector per text; a text without words is the first axis."""
        del tenant  # nothing is kept, so there is nothing to keep apart
        future: Future[NDArray[np.float32]] = Future()
        if self._closed:
            future.set_exception(EngineError("the encoder is closed"))
        else:
            future.set_result(self._vectors(texts))
        return future

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        rows = np.zeros((len(texts), self.dim), dtype=np.float64)
        for row, text in zip(rows, texts, strict=True):
            for feature, weight in _features(text):
                digest = int.from_bytes(blake2b(feature, digest_size=8).digest(), "little")
                row[(digest >> 1) % self.dim] += weight if digest & 1 else -weight
            if not row.any():
                row[0] = 1
        found: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
            np.float32
        )
        return found

    def close(self) -> None:
        """Answer nothing from now on. Idempotent."""
        self._closed = True


def _features(text: str) -> Iterator[tuple[bytes, float]]:
    words = _WORD.findall(text.casefold())
    for word in words:
        yield _named("w", word), _WORD_WEIGHT
        framed = f"<{word}>"
        for n in _GRAMS:
            for start in range(len(framed) - n + 1):
                yield _named("c", framed[start : start + n]), 1.0
    for one, other in pairwise(words):
        yield _named("p", f"{one} {other}"), _WORD_WEIGHT


def _named(kind: str, feature: str) -> bytes:
    return f"{kind}:{feature}".encode("utf-8", "surrogatepass")
