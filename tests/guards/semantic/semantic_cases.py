"""An encoder whose cosines a test plants, and targets to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from elision.guards.gate.assessment import Assessment, Level, Suspect
from elision.guards.semantic.semantics import Semantics
from elision.guards.targets import ForgetTarget, Phrase
from elision.testing.encoders import BagEncoder


class Planted:
    """Cosines between texts as planted; everything else is at right angles to everything.

    Args:
        cosines: By text: another text, and the cosine to it.
    """

    name = "planted"

    def __init__(self, cosines: Mapping[str, tuple[str, float]], dim: int = 512) -> None:
        self.cosines = cosines
        self.dim = dim
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        self.asked += texts
        future: Future[NDArray[np.float32]] = Future()
        future.set_result(np.stack([self._vector(text) for text in texts]))
        return future

    def _vector(self, text: str) -> NDArray[np.float32]:
        anchor, cosine = self.cosines.get(text, (text, 1.0))
        vector = np.zeros(self.dim, dtype=np.float32)
        vector[2 * (crc32(anchor.encode()) % (self.dim // 2))] += cosine
        vector[2 * (crc32(text.encode()) % (self.dim // 2)) + 1] += math.sqrt(1 - cosine**2)
        return vector

    def close(self) -> None:
        """Nothing to free."""


def target(id: str = "t", *, phrases: Sequence[str] = (), **fields: Any) -> ForgetTarget:  # noqa: A002
    texts = tuple(Phrase(text=text) for text in phrases)
    return ForgetTarget(id=id, title="Zorblax", phrases=texts, **fields)


def suspicion(level: Level = Level.OPEN, *ids: str, score: float = 0.9) -> Assessment:
    suspects = tuple(Suspect(name, score, named=True) for name in ids or ("t",))
    return Assessment(level=level, suspects=suspects, score=score)


def semantics(*targets: ForgetTarget, encoder: Any = None, **fields: Any) -> Semantics:
    return Semantics.compile(targets, encoder or BagEncoder(), tenant="default", **fields)
