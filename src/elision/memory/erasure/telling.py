"""Caches elsewhere are told what went; one that could not be told is not forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from elision.contract import Erasable


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling the caches of one process.

    Attributes:
        dropped: How much they dropped.
        reached: The kinds that there are here, those of `missed` too.
        missed: The kinds of which one failed.
    """

    dropped: int = 0
    reached: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()

    def left(self, untold: Collection[str]) -> tuple[str, ...]:
        """Return what is untold after this, given what was before: others' kinds stay so."""
        return tuple(sorted((set(untold) - self.reached) | self.missed))


def tell(erasables: Iterable[Erasable], tenant: str, texts: Sequence[str] | None) -> Told:
    """Have every cache drop what is *tenant*'s, or what of it holds one of *texts*.

    Whatever a cache raises, it was not told.
    """
    dropped, reached, missed = 0, set[str](), set[str]()
    for erasable in erasables:
        kind = type(erasable).__qualname__
        reached.add(kind)
        try:
            dropped += erasable.erase(tenant, texts=texts)
        except Exception:  # a cache's bug, too, leaves it untold and must not end the erasure
            missed.add(kind)
    return Told(dropped, frozenset(reached), frozenset(missed))
