"""What a round asks of whatever it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from elision.middleware.engines.branches import Asides

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from elision.middleware.speculation.base import Draft, Mode
    from elision.middleware.speculation.controller import Ledger
    from elision.middleware.speculation.walk import Walk, Walking


class Decoded(Protocol):
    """One choice as a round sees it; `elision.middleware.engines.sequence.Sequence` is one.

    Attributes:
        cache: Keys and values of all that is certain but the root.
        mode: Whether to draft.
        ledger: What drafting may cost.
        is_apart: Whether it must have every forward to itself.
        asides: Other contexts that follow it.
    """

    cache: DynamicCache
    mode: Mode
    ledger: Ledger
    is_apart: bool
    asides: Asides

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """The reply so far."""
        ...

    @property
    def root(self) -> int:
        """The last certain token."""
        ...

    @property
    def n_past(self) -> int:
        """Certain tokens before the root."""
        ...

    def begin(self) -> Walking:
        """Choose the first token."""
        ...

    def prepare(self) -> None:
        """Make ready for a forward: forget what was taken back."""
        ...

    def propose(self, n: int) -> Draft:
        """Return a draft of at most *n* tokens."""
        ...

    def walk(self, logits: Tensor, draft: Draft) -> Walking:
        """Choose tokens for as long as the draft has them."""
        ...

    def learn(self, logits: Tensor, draft: Draft, walk: Walk) -> None:
        """Keep in the cache what was accepted, and let the drafter learn."""
        ...
