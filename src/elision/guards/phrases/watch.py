"""Recipes that let a phrase be written and act on it: redact, refuse, count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from elision.contract import ALLOW, Context, Here, Lexicon, Redact, Refuse, Stage, Verdict
from elision.guards.phrases.holdback import REDACTED
from elision.guards.phrases.mask import MIN_MASS, check_lexicon, forbid
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.product import Product
from elision.guards.phrases.tracker import Span, Tracker
from elision.guards.phrases.unescape import Plain

if TYPE_CHECKING:
    from torch import Tensor

HELD_LIMIT: Final = 256
"""Characters held because they may become a phrase; past them the mask takes over (DESIGN 2)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one choice's text stands, as an immutable value.

    Attributes:
        tracker: Never fed again once it is here.
        lexicon: What each token writes.
        pending: Bytes that wait for the rest of their character.
    """

    tracker: Tracker
    lexicon: Lexicon
    pending: bytes = b""

    @classmethod
    def begin(cls, patterns: PatternSet, context: Context) -> Trace:
        """Open a trace behind the text that the reply continues."""
        tracker = Tracker(patterns, excluded=patterns.echoed(context.user_text))
        tracker.skip(context.before)
        return cls(tracker, context.lexicon)

    def advance(self, token: int) -> tuple[Trace, tuple[Span, ...]]:
        """Return the trace after *token* and the spans that it settles."""
        text, pending = self.lexicon.write(self.pending, token)
        trace, spans = self.read(text)
        return replace(trace, pending=pending), spans

    def read(self, text: str) -> tuple[Trace, tuple[Span, ...]]:
        """Return the trace after *text* and the spans that it settles."""
        tracker = self.tracker.fork()
        spans = tuple(s for c in Plain(tracker.length).read(text) for s in tracker.read(c))
        return Trace(tracker, self.lexicon, self.pending), spans

    def finish(self) -> tuple[Trace, tuple[Span, ...]]:
        """Return the trace at the end of the text and the spans that the end settles."""
        trace, spans = self.read(self.lexicon.finish(self.pending))
        last = tuple(trace.tracker.finish())
        return replace(trace, pending=b""), (*spans, *last)

    @property
    def growing(self) -> int:
        """Characters at the end that may grow into a phrase."""
        return self.tracker.length - self.tracker.frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseWatch:
    """Let a phrase be written, and redact it or end the answer before any of it has left.

    A recipe. The mask stays off until more than `HELD_LIMIT` characters are held: from there on
    the phrase can no longer be completed, so the oldest may go.

    Attributes:
        product: The phrases of targets that redact or refuse, times the engine's vocabulary.
        marker: What stands in the place of a redacted span.
        min_mass: See `PhraseMask`.
    """

    product: Product
    marker: str = REDACTED
    min_mass: float = MIN_MASS
    rank: int = 1
    stage = Stage.HARD_MASK

    def begin(self, context: Context) -> WatchSession:
        """Open a session for one choice.

        Raises:
            ConfigError: If the guard was compiled for another vocabulary.
        """
        check_lexicon(self.product, context)
        excluded = self.product.patterns.echoed(context.user_text)
        return WatchSession(self, Trace.begin(self.product.patterns, context), excluded)


@dataclass(frozen=True, slots=True)
class WatchSession:
    """One choice under a `PhraseWatch`.

    Attributes:
        verdict: `Redact` over all spans that the last token settled, or `Refuse`.
    """

    recipe: PhraseWatch
    trace: Trace
    excluded: frozenset[int]
    verdict: Verdict = ALLOW
    ended: bool = False

    @property
    def held(self) -> int:
        """Characters at the end that must not leave yet."""
        tracker = self.trace.tracker
        safe = max(0, tracker.safe(limit=HELD_LIMIT))
        return 0 if self.ended else tracker.length - safe

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores, masked once too much is held."""
        if self.trace.growing <= HELD_LIMIT:
            return logits
        return self._forbid(logits, here, self.recipe.min_mass)

    def conceal(self, scores: Tensor) -> Tensor:
        """Return *scores* without the tokens that would complete a phrase.

        Such a token may be chosen here, but naming it as an alternative would tell the phrase.
        """
        product = self.recipe.product
        alone = product.blocked(product.patterns.start, self.excluded)
        return forbid(self._forbid(scores, None, 0.0), alone, min_mass=0.0)

    def advance(self, token: int) -> WatchSession:
        """Return the session after *token*."""
        trace, spans = self.trace.advance(token)
        if trace.growing > HELD_LIMIT:  # nothing found can grow any more: the mask is on
            trace = replace(trace, tracker=trace.tracker.fork())
            spans = (*spans, *trace.tracker.settle())
        return replace(self, trace=trace, verdict=self._judge(spans))

    def read(self, text: str) -> WatchSession:
        """Return the session after *text*; what is settled within it has been judged before."""
        return replace(self, trace=self.trace.read(text)[0], verdict=ALLOW)

    def finish(self) -> WatchSession:
        """Return the session after the end of the text, which ends the last word too."""
        trace, spans = self.trace.finish()
        return replace(self, trace=trace, verdict=self._judge(spans), ended=True)

    def _judge(self, spans: Iterable[Span]) -> Verdict:
        spans = tuple(spans)
        if any(span.refuse for span in spans):
            return Refuse()
        if not spans:
            return ALLOW
        start = max(0, min(span.start for span in spans))
        return Redact(start, max(span.end for span in spans), self.recipe.marker)

    def _forbid(self, scores: Tensor, here: Here | None, min_mass: float) -> Tensor:
        reading = self.trace.tracker.reading._replace(pending=self.trace.pending)
        blocked = self.recipe.product.blocked(reading, self.excluded)
        return forbid(scores, blocked, here, min_mass=min_mass)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseCount:
    """Count phrases that are only observed; change and hold nothing.

    Attributes:
        patterns: The phrases.
    """

    patterns: PatternSet
    rank: int = 0
    stage = Stage.SIGNAL

    def begin(self, context: Context) -> CountSession:
        """Open a session for one choice."""
        return CountSession(Trace.begin(self.patterns, context))


@dataclass(frozen=True, slots=True)
class CountSession:
    """One choice under a `PhraseCount`.

    A phrase is noted at the position after it. The last one of a text has no such position:
    `tally`, read after `finish`, is the whole count.

    Attributes:
        fresh: Phrases that the last token settled.
        total: Phrases so far.
    """

    trace: Trace
    fresh: int = 0
    total: int = 0
    held = 0
    verdict = ALLOW

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted in this choice so far, by the key it is noted under."""
        return {"guard.observed": self.total}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores; note what the last token settled."""
        if self.fresh:
            here.note("guard.observed", self.fresh)
        return logits

    def advance(self, token: int) -> CountSession:
        """Return the session after *token*."""
        return self._after(*self.trace.advance(token))

    def read(self, text: str) -> CountSession:
        """Return the session after *text*."""
        return self._after(*self.trace.read(text))

    def finish(self) -> CountSession:
        """Return the session after the end of the text."""
        return self._after(*self.trace.finish())

    def _after(self, trace: Trace, spans: tuple[Span, ...]) -> CountSession:
        return CountSession(trace, len(spans), self.total + len(spans))
