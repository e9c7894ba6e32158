"""How much of a target one session has heard: many harmless facts make up a harmful one."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from secrets import token_bytes
from typing import Final

MOST_TARGETS: Final = 256
"""Targets that one session is followed for; the ones asked about longest ago are forgotten."""


class Disclosure:
    """Which facts of which targets a session was told, as keyed digests. Not shared by sessions.

    A fact that was told once may be told again.
    """

    def __init__(self) -> None:
        self._key = token_bytes(16)
        self._told: OrderedDict[str, set[bytes]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Disclosure({len(self._told)} targets)"

    def count(self, target_id: str) -> int:
        """Return how many different facts of a target were told."""
        return len(self._told.get(target_id, ()))

    def exceeds(self, target_id: str, fact: str, most: int) -> bool:
        """Return whether to tell *fact* would make more than *most* of this target."""
        told = self._told.get(target_id, set())
        return self._digest(fact) not in told and len(told) >= most

    def tell(self, target_id: str, fact: str) -> None:
        """Keep in mind that *fact* was told."""
        self._told.setdefault(target_id, set()).add(self._digest(fact))
        self._told.move_to_end(target_id)
        while len(self._told) > MOST_TARGETS:
            self._told.popitem(last=False)

    def _digest(self, fact: str) -> bytes:
        return blake2b(fact.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
