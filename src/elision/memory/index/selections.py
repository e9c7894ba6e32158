"""Selections made before: whoever asks again with the same filters gets the same array."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from elision.memory.filters import Filter, token

if TYPE_CHECKING:
    from elision.memory.index.vectors import Ids

_MOST: Final = 32


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected.

    Attributes:
        ids: Read-only; None: all.
        made_at: For which time, in seconds since 1970.
        valid_until: When the first of them expires.
    """

    ids: Ids | None
    made_at: float
    valid_until: float


class Selections:
    """The last selections of a partition, until it changes. Any thread may call."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Selection] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, now: float) -> Selection | None:
        """Return what was selected under *key*, if it still holds at *now*."""
        with self._lock:
            made = self._made.get(key)
            if made is None or not made.made_at <= now < made.valid_until:
                return None
            self._made.move_to_end(key)
            return made

    def put(self, key: Hashable, selection: Selection) -> None:
        """Remember *selection*."""
        with self._lock:
            self._made[key] = selection
            while len(self._made) > _MOST:
                self._made.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._made.clear()


def key_of(
    spaces: Collection[int] | None,
    kinds: Collection[str],
    states: Collection[str],
    least_trust: int,
    where: Filter | None,
) -> Hashable:
    """Return what equal selections share."""
    conditions = () if where is None else where.conditions
    return (
        None if spaces is None else frozenset(spaces),
        frozenset(kinds),
        frozenset(states),
        max(0, least_trust),
        tuple((one.path, one.operator, token(one.operand)) for one in conditions),
    )
