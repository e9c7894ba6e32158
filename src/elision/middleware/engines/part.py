"""One sequence's share of a row of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from elision.middleware.engines.attention import Seen
from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.masks import Masks

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(slots=True)
class Part:
    """A sequence's share of the row, and whom its tokens may look at.

    Attributes:
        cache: The sequence's own, every layer of full length.
        start: Where its tokens begin on the row.
        n: How many they are.
        masks: As `tree_masks` makes them; None if every token sees everything.
        draft: How the tokens hang together.
        n_past: Slots before the draft's root.
    """

    cache: DynamicCache
    start: int
    n: int
    masks: Masks | None
    draft: Draft
    n_past: int
    _stacked: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _seen: dict[tuple[str, int], Seen] = field(default_factory=dict)

    def mask(self, kind: str) -> Tensor | None:
        """Return the mask of a layer of *kind*."""
        return self.masks[kind] if isinstance(self.masks, dict) else self.masks

    def stacked(self, kind: str, n_heads: int) -> Tensor | None:
        """Return the mask of a layer of *kind* *n_heads* times, one below the other."""
        mask = self.mask(kind)
        if mask is None or n_heads == 1:
            return mask
        if (kind, n_heads) not in self._stacked:
            self._stacked[kind, n_heads] = mask.repeat(1, 1, n_heads, 1)
        return self._stacked[kind, n_heads]

    def seen(self, kind: str, n_heads: int) -> Seen:
        """Return whom the tokens may look at in a layer of *kind* whose keys *n_heads* share."""
        if (kind, n_heads) not in self._seen:
            mask = self.mask(kind)
            self._seen[kind, n_heads] = Seen.of(self.n_past, self.draft, mask, n_heads)
        return self._seen[kind, n_heads]
