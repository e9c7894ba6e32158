"""Replies that grow from question to question: what has been read of them is not read again.

Every question brings the whole text so far. Read from its beginning each time, a long reply would
cost the square of its length. So the hold that has read a text is kept for the next question, and
used if that begins with the same text. It says nothing that a new one would not say: this saves
time, and any replica may be asked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from elision.guards.phrases.unescape import Json, Plain

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.holding.holds import Hold

MOST_KEPT: Final = 256
"""Texts that are kept per enforcement; the one that has waited longest goes first."""
MOST_CHARACTERS: Final = 4_000_000
"""What they may come to together."""
PATIENCE_S: Final = 120.0
"""How long a text waits for its next question."""

Key: TypeAlias = tuple[Any, ...]
_T = TypeVar("_T")


@dataclass(slots=True)
class Reading:
    """A text that has been read by its hold, and may go on.

    Attributes:
        hold: It has read *text* and nothing else.
        text: From the reply's beginning.
        left: What the hold has let go of it.
        since: When it was put away, on the monotonic clock.
    """

    hold: Hold
    text: str = field(default="", repr=False)
    left: str = field(default="", repr=False)
    since: float = 0.0

    @property
    def n_characters(self) -> int:
        """What it takes to keep it."""
        return len(self.text) + len(self.left)


class Growing:
    """The replies that are being read. Lives with the application; for its event loop only.

    What was read under an enforcement goes with it: after a change or a purge nothing of the old
    words is kept here.

    Args:
        clock: Tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: WeakKeyDictionary[Enforcement, OrderedDict[Key, Reading]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def take(self, rules: Enforcement, key: Key, text: str) -> Reading | None:
        """Return, and forget, what was read of the reply *key*; None unless *text* goes on from it.

        Whoever takes it owns it: two questions about one reply never share a hold.
        """
        found = self._kept.get(rules, OrderedDict()).pop(key, None)
        return found if found is not None and text.startswith(found.text) else None

    def put(self, rules: Enforcement, key: Key, reading: Reading) -> None:
        """Keep *reading* for the next question about the reply *key*."""
        reading.since = self._clock()
        kept = self._kept.setdefault(rules, OrderedDict())
        kept.pop(key, None)
        kept[key] = reading
        while kept and self._is_over(kept):
            kept.popitem(last=False)

    def _is_over(self, kept: OrderedDict[Key, Reading]) -> bool:
        oldest = next(iter(kept.values()))
        return (
            len(kept) > MOST_KEPT
            or self._clock() - oldest.since > PATIENCE_S
            or sum(reading.n_characters for reading in kept.values()) > MOST_CHARACTERS
        )


def forked(hold: Hold) -> Hold:
    """Return a hold at the same place, which may be fed and finished while *hold* stays there."""
    other = copy(hold)
    for name, value in vars(other).items():
        setattr(other, name, _own(value))
    return other


def _own(value: _T) -> _T:
    """Return *value*, or a copy of it if reading on would change it."""
    if hasattr(value, "fork"):
        return cast("_T", value.fork())  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(value, "feed"):
        return cast("_T", forked(cast("Hold", value)))
    if isinstance(value, tuple) and type(value) is tuple:
        return cast("_T", tuple(map(_own, value)))
    return copy(value) if isinstance(value, Plain | Json | list | dict | set) else value
