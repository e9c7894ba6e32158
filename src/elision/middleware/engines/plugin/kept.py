"""Masks that this process has learned, by digest."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from elision.guards.carried import Carried, CompiledMasks

MOST: Final = 64
"""Masks kept: tenants at their present epoch, and those whose requests are still under way."""
MOST_CHARS: Final = 16 << 20
"""Characters of the bodies of all masks kept. Compiled, phrases take some 50 bytes a character."""


class Kept:
    """The last masks learned or asked for; the ``repr`` tells nothing of them.

    A row that is open keeps what it was opened with, whatever is dropped here.

    Args:
        most: Masks kept; of more, the one that was not used for longest goes.
        most_chars: Characters of their bodies; those that were learned last stay, however long.
    """

    def __init__(self, most: int = MOST, *, most_chars: int = MOST_CHARS) -> None:
        self._most = most
        self._most_chars = most_chars
        self._masks: OrderedDict[str, CompiledMasks] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Kept({len(self)} of {self._most})"

    def __len__(self) -> int:
        return len(self._masks)

    def learn(self, body: str) -> str:
        """Keep the masks that *body* describes, and return their digest.

        Raises:
            TargetError: If it describes none; what was kept stays.
        """
        carried = Carried.loads(body)
        if self.find(carried.digest) is None:
            self._masks[carried.digest] = carried.compile()
            self._sizes[carried.digest] = len(body)
            while self._is_too_much():
                del self._sizes[self._masks.popitem(last=False)[0]]
        return carried.digest

    def _is_too_much(self) -> bool:
        n = len(self._masks)
        return n > self._most or (n > 1 and sum(self._sizes.values()) > self._most_chars)

    def find(self, digest: str) -> CompiledMasks | None:
        """Return the masks of *digest*, if they are known."""
        if digest in self._masks:
            self._masks.move_to_end(digest)
        return self._masks.get(digest)
