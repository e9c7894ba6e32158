"""Recipes that would redact, on a reply that has a form: whoever reads it redacts, or refuses.

Within JSON a marker would change what is called. Which characters are JSON is known only where the
reply is read, so there the guards of text do what these leave undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from elision.contract import (
    ALLOW,
    REFUSE,
    Context,
    Here,
    Recipe,
    Redact,
    Rewind,
    Session,
    Stage,
    Verdict,
)
from elision.guards.conversation.watch import AccumulatedWatch
from elision.guards.encoded.encoded import EncodedWatch
from elision.guards.phrases.watch import PhraseWatch
from elision.guards.semantic.watch import SemanticWatch
from elision.middleware.interventions.base import Conceals, Grows, Notices, Reads, Tallies

if TYPE_CHECKING:
    from torch import Tensor

_ACTING: Final = (PhraseWatch, EncodedWatch, AccumulatedWatch, SemanticWatch)


@dataclass(frozen=True, slots=True)
class Unredacted:
    """Another recipe, whose spans are let through; where no way back is left it refuses.

    Attributes:
        inner: The other.
    """

    inner: Recipe

    @property
    def stage(self) -> Stage:
        """The other's."""
        return self.inner.stage

    @property
    def rank(self) -> int:
        """The other's."""
        return self.inner.rank

    def begin(self, context: Context) -> UnredactedSession:
        """Open the other's session for one choice."""
        return UnredactedSession(self.inner.begin(context))


@dataclass(frozen=True, slots=True)
class UnredactedSession:
    """One choice under another recipe's session; see `Unredacted`.

    Attributes:
        inner: That session.
    """

    inner: Session

    @property
    def held(self) -> int:
        """See `Session.held`."""
        return self.inner.held

    @property
    def verdict(self) -> Verdict:
        """What the other calls for, spans left out."""
        verdict = self.inner.verdict
        if isinstance(verdict, Redact):
            return ALLOW
        if isinstance(verdict, Rewind) and isinstance(verdict.otherwise, Redact):
            return replace(verdict, otherwise=REFUSE)
        return verdict

    @property
    def n_growing(self) -> int:
        """See `Grows`."""
        return self.inner.n_growing if isinstance(self.inner, Grows) else 0

    @property
    def tally(self) -> Mapping[str, float]:
        """See `Tallies`."""
        return self.inner.tally if isinstance(self.inner, Tallies) else {}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """See `Session.adjust`."""
        return self.inner.adjust(logits, here)

    def conceal(self, scores: Tensor) -> Tensor:
        """See `Conceals`."""
        return self.inner.conceal(scores) if isinstance(self.inner, Conceals) else scores

    def advance(self, token: int) -> UnredactedSession:
        """Return the session after *token*."""
        return UnredactedSession(self.inner.advance(token))

    def read(self, text: str) -> UnredactedSession:
        """See `Reads`."""
        inner = self.inner
        return UnredactedSession(inner.read(text)) if isinstance(inner, Reads) else self

    def notice(self, notes: Mapping[str, float], tokens: Sequence[int]) -> UnredactedSession:
        """See `Notices`."""
        inner = self.inner
        return (
            UnredactedSession(inner.notice(notes, tokens)) if isinstance(inner, Notices) else self
        )

    def finish(self) -> UnredactedSession:
        """Return the session after the end of the text."""
        return UnredactedSession(self.inner.finish())


def unredacted(recipe: Recipe) -> Recipe:
    """Return *recipe*, or one that stands for it and never redacts, if it might."""
    own = getattr(recipe, "inner", recipe)  # one that stands for another says which
    return Unredacted(recipe) if isinstance(own, _ACTING) else recipe
