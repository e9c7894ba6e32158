"""Phrases that leave in disguise: rotated, reversed, in leet, base64, hexadecimal, escaped.

The phrase mask sees a text in its normal forms. What those do not undo is followed here, letter by
letter, and acted upon before the last of it has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from elision.contract import (
    ALLOW,
    REFUSE,
    Context,
    Here,
    Lexicon,
    Redact,
    Refuse,
    Rewind,
    Stage,
    Verdict,
)
from elision.guards.encoded.forms import EncodedSet
from elision.guards.encoded.reader import EncodedReader
from elision.guards.phrases.holdback import REDACTED
from elision.guards.phrases.patterns import owned
from elision.guards.phrases.tracker import Span
from elision.guards.phrases.unescape import Plain
from elision.guards.targets import Action, ForgetTarget

if TYPE_CHECKING:
    from torch import Tensor

    from elision.contract import Recipe


class Encoded:
    """A tenant's hard phrases at one epoch, in every writing that is enforced. Immutable.

    Attributes:
        restricted: Those of targets that restrict.
        acting: Those of targets that redact or refuse.
        observed: Those that are only counted.
        marker: What stands in the place of a redacted span.
    """

    def __init__(self, targets: Iterable[ForgetTarget], *, marker: str = REDACTED) -> None:
        pairs = [
            (owner, phrase)
            for owner, phrase in owned(t for t in targets if t.state == "active")
            if phrase.mode == "hard"
        ]

        def of(*actions: Action) -> EncodedSet:
            return EncodedSet((o, phrase) for o, phrase in pairs if o.action in actions)

        self.restricted = of("restrict")
        self.acting = of("redact", "refuse")
        self.observed = of("observe")
        self.marker = marker

    @classmethod
    def compile(cls, targets: Iterable[ForgetTarget], *, marker: str = REDACTED) -> Encoded:
        """Compile the active ones of *targets*; time and memory are linear in their letters."""
        return cls(targets, marker=marker)

    def __repr__(self) -> str:
        return f"Encoded({self.restricted!r}, {self.acting!r}, {self.observed!r})"

    def __bool__(self) -> bool:
        return bool(self.restricted or self.acting or self.observed)

    @property
    def sets(self) -> tuple[EncodedSet, ...]:
        """Those that have phrases."""
        return tuple(s for s in (self.restricted, self.acting, self.observed) if s)

    def recipes(self) -> tuple[Recipe, ...]:
        """Return what enforces the phrases on an engine with logits; nothing if there are none."""
        return (EncodedWatch(encoded=self),) if self else ()


class Token(NamedTuple):
    """A token that has not left yet.

    Attributes:
        position: In tokens of the reply.
        start: First raw character that it may have written.
        token: Its id.
    """

    position: int
    start: int
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedWatch:
    """Let no phrase be completed in a writing that the mask does not see.

    A recipe. Where a target restricts, the reply goes back to where the span began (to the first
    token of it that has not left) and that token is banned there; where it redacts or refuses,
    that is done; where it observes, the span is counted.

    Attributes:
        encoded: The phrases.
    """

    encoded: Encoded
    rank: int = 2
    stage = Stage.HARD_MASK

    def begin(self, context: Context) -> EncodedSession:
        """Open a session for one choice, behind the text that the reply continues."""
        readers = []
        for phrases in self.encoded.sets:
            excluded = phrases.patterns.echoed(context.user_text)
            reader = EncodedReader(phrases, excluded=excluded)
            reader.skip(context.before)
            readers.append(reader)
        return EncodedSession(self, tuple(readers), context.lexicon)


@dataclass(frozen=True, slots=True)
class EncodedSession:
    """One choice under an `EncodedWatch`.

    Attributes:
        readers: One per role; never fed again once they are here.
        verdict: `Rewind`, `Redact` or `Refuse` if the last token completed a phrase.
        mark: Raw characters that may have left.
        tokens: Those behind the mark, in order.
        n_observed: Phrases counted.
    """

    recipe: EncodedWatch
    readers: tuple[EncodedReader, ...]
    lexicon: Lexicon
    pending: bytes = b""
    verdict: Verdict = ALLOW
    position: int = 0
    mark: int = 0
    tokens: tuple[Token, ...] = ()
    n_observed: int = 0

    @property
    def length(self) -> int:
        """Raw characters of the reply."""
        return max((reader.length for reader in self.readers), default=0)

    @property
    def held(self) -> int:
        """Characters at the end that may still become a phrase."""
        return max(0, self.length - self._frontier)

    @property
    def _frontier(self) -> int:
        observed = self.recipe.encoded.observed
        acting = (r.frontier for r in self.readers if r.phrases is not observed)
        return min(acting, default=self.length)

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted in this choice so far, by the key it is noted under."""
        return {"guard.observed_encoded": self.n_observed} if self.n_observed else {}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores."""
        return logits

    def advance(self, token: int) -> EncodedSession:
        """Return the session after *token*."""
        text, pending = self.lexicon.write(self.pending, token)
        mark = max(self.mark, self._frontier)
        held = tuple([t for t in self.tokens if t.start >= mark]) if self.tokens else ()
        tokens = (*held, Token(self.position, self.length, token))
        behind = EncodedSession(
            self.recipe, self.readers, self.lexicon, pending, ALLOW, self.position + 1, mark,
            tokens, self.n_observed,
        )  # fmt: skip
        return behind._after(text)

    def read(self, text: str) -> EncodedSession:
        """Return the session after *text*, which no whole token wrote."""
        return self._after(text)

    def finish(self) -> EncodedSession:
        """Return the session after the end of the text."""
        return self._after(self.lexicon.finish(self.pending), at_end=True)

    def _after(self, text: str, *, at_end: bool = False) -> EncodedSession:
        readers, found = [], list[list[Span]]()
        for before in self.readers:
            reader = before.fork()
            spans = reader.read(Plain(before.length).read(text))
            spans += reader.finish() if at_end else ()
            found.append([span for span in spans if span.end > 0])
            readers.append(reader)
        verdict, n_observed = self._judge(found) if any(found) else (ALLOW, 0)
        return EncodedSession(
            self.recipe, tuple(readers), self.lexicon, self.pending, verdict, self.position,
            self.mark, self.tokens, self.n_observed + n_observed,
        )  # fmt: skip

    def _judge(self, found: Sequence[list[Span]]) -> tuple[Verdict, int]:
        """Return what the spans call for, and how many are only counted."""
        verdict: Verdict = ALLOW
        encoded, n_observed = self.recipe.encoded, 0
        for n, spans in enumerate(found):
            phrases = self.readers[n].phrases
            if not spans:
                continue
            if phrases is encoded.observed:
                n_observed = len(spans)
            elif phrases is encoded.acting:
                verdict = _stricter(verdict, _act(spans, encoded.marker))
            else:
                verdict = _stricter(verdict, self._go_back(spans))
        return verdict, n_observed

    def _go_back(self, spans: list[Span]) -> Verdict:
        start = max(self.mark, min(span.start for span in spans))
        if not self.tokens:
            return REFUSE
        # The token that the span begins in, or the first that has not left.
        begun = (t for t in self.tokens if t.start <= start)
        to = max(begun, key=_by_position, default=self.tokens[0])
        return Rewind(to.position, frozenset({to.token}))


def _by_position(token: Token) -> int:
    return token.position


def _act(spans: list[Span], marker: str) -> Verdict:
    if any(span.refuse for span in spans):
        return REFUSE
    return Redact(max(0, min(s.start for s in spans)), max(s.end for s in spans), marker)


def _stricter(one: Verdict, two: Verdict) -> Verdict:
    order: tuple[type, ...] = (Refuse, Rewind, Redact)
    return next((v for kind in order for v in (one, two) if isinstance(v, kind)), two)
