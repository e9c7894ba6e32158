"""Where a reply has been: what is needed to go back to a position and choose otherwise there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from torch import Tensor

from elision.contract import Rewind
from elision.middleware.engines.release import Mark
from elision.middleware.interventions.base import Chain

MAX_REWINDS: Final = 8
"""Most rewinds of one reply (GUARD's R); whoever asks for more gets what he asks for otherwise."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A reply as it stood before a token was chosen.

    Attributes:
        chain: The sessions then; values, so they are still what they were.
        pending: Bytes that waited for the rest of their character.
        mark: What had been written.
        notes: What had been noted.
    """

    chain: Chain
    pending: bytes
    mark: Mark
    notes: Counter[str]


@dataclass(slots=True)
class Past:
    """The positions a reply can go back to, and what must not be chosen there again.

    Attributes:
        n_rewinds: How often it went back; the draw's attempt.
        n_tokens: Tokens that were taken back.
    """

    n_rewinds: int = 0
    n_tokens: int = 0
    _stands: dict[int, Stand] = field(default_factory=dict)
    _bans: dict[int, frozenset[int]] = field(default_factory=dict)
    _tries: Counter[int] = field(default_factory=Counter)

    def keep(self, position: int, stand: Stand) -> None:
        """Remember how the reply stood before the token at *position*."""
        self._stands[position] = stand

    def forget_before(self, n_chars: int) -> None:
        """Let go of positions behind which text has left: *n_chars* characters of the reply."""
        for position in [p for p, s in self._stands.items() if s.mark.length < n_chars]:
            del self._stands[position]

    def may(self, rewind: Rewind) -> bool:
        """Return whether *rewind* can still be done."""
        return (
            rewind.to in self._stands
            and self.n_rewinds < MAX_REWINDS
            and self._tries[rewind.to] < rewind.retries
        )

    def back(self, rewind: Rewind, tokens: list[int]) -> Stand:
        """Return how the reply stood at *rewind*'s position, and ban what was chosen there.

        Bans of later positions were found behind another prefix: they are dropped.
        """
        to = rewind.to
        banned = self._bans.get(to, frozenset()) | rewind.bans | {*tokens[to : to + 1]}
        self._bans = {p: bans for p, bans in self._bans.items() if p < to} | {to: banned}
        self._tries[to] += 1
        self.n_rewinds += 1
        self.n_tokens += len(tokens) - to
        stand = self._stands[to]
        self._stands = {p: s for p, s in self._stands.items() if p < to}
        return stand

    def before(self, n_chars: int) -> Stand | None:
        """Return the last stand with at most *n_chars* characters written, if one is kept."""
        fits = [s for s in self._stands.values() if s.mark.length <= n_chars]
        return max(fits, key=lambda s: s.mark.length, default=None)

    def ban(self, row: Tensor, position: int) -> Tensor:
        """Return *row*, shape ``(vocab,)``, without what is banned at *position*."""
        if not (banned := self._bans.get(position)):
            return row
        return row.index_fill(0, row.new_tensor([*banned]).long(), -float("inf"))


def earliest(rewinds: Iterable[Rewind]) -> Rewind:
    """Return the rewind that goes back farthest, with the bans of all that go back as far."""
    found = sorted(rewinds, key=lambda rewind: rewind.to)
    bans = (rewind.bans for rewind in found if rewind.to == found[0].to)
    return replace(found[0], bans=frozenset[int]().union(*bans))
