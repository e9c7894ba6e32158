"""One reply under the semantic layer: where its words and sentences began, what they call for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from elision.contract import ALLOW, Context, Here, Lexicon, Rewind, Verdict
from elision.guards.gate.assessment import Assessment, Level, Suspect
from elision.guards.semantic.judge import Finding, Judge, otherwise
from elision.guards.semantic.semantics import Semantics
from elision.guards.semantic.sentences import Piece, Running, in_word

if TYPE_CHECKING:
    from torch import Tensor

MASKED: Final = "guard.masked"
"""Under which the phrase mask notes the probability that it took away."""
MAX_RAISED: Final = 64
"""Targets that are compared with when the model tells what the gate did not suspect; a register
with more of them is too much to embed in the middle of an answer, so nothing is raised."""


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """One choice about which the gate has no suspicion, or that is refused before it begins.

    Attributes:
        verdict: `ALLOW`, or `REFUSE`.
    """

    semantics: Semantics = field(repr=False)
    marker: str
    context: Context = field(repr=False)
    verdict: Verdict = ALLOW
    held = 0

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores."""
        return logits

    def advance(self, token: int) -> ClosedSession:
        """Return the very same session."""
        return self

    def read(self, text: str) -> ClosedSession:
        """Return the very same session."""
        return self

    def finish(self) -> ClosedSession:
        """Return the very same session."""
        return self

    def notice(
        self, notes: Mapping[str, float], tokens: Sequence[int]
    ) -> ClosedSession | SemanticSession:
        """Return the session that watches from here on if the model was about to tell a phrase.

        Args:
            notes: What the chain noted where the last token was chosen.
            tokens: The reply so far, that token included.

        Raises:
            GuardError: If the encoder breaks.
        """
        semantics = self.semantics
        ids = semantics.ids()
        is_leaking = notes.get(MASKED, 0.0) >= semantics.policy.leak
        if not is_leaking or self.verdict != ALLOW or not 0 < len(ids) <= MAX_RAISED:
            return self
        suspects = tuple(Suspect(target_id, 0.0, named=False) for target_id in ids)
        suspicion = Assessment(level=Level.WATCH, suspects=suspects)
        judge = Judge.of(semantics, suspicion, self.context.user_text)
        running, pending = Running.after(self.context.before), b""
        for token in tokens:
            text, pending = self.context.lexicon.write(pending, token)
            running = running.read(text)[0]
        lexicon, position = self.context.lexicon, len(tokens)
        session = SemanticSession(judge, self.marker, lexicon, running.left(), pending, position)
        return replace(session, raised=1)


class Place(NamedTuple):
    """A token of the running sentence.

    Attributes:
        position: Tokens of the reply before it.
        offset: Raw characters of the reply before it.
        token: Its id; None for text that no whole token wrote.
    """

    position: int
    offset: int
    token: int | None


@dataclass(frozen=True, slots=True)
class SemanticSession:
    """One choice that is watched.

    Attributes:
        judge: Compares.
        marker: What stands in the place of a redacted piece.
        lexicon: What each token writes.
        running: The running sentence.
        pending: Bytes that wait for the rest of their character.
        position: Tokens of the reply so far.
        trail: Those that wrote the running sentence, half characters counted once.
        soft: Nats that a token loses where it would begin a word.
        observed: Findings about targets that only observe, so far.
        raised: How often the level was raised because the model was about to tell a phrase.
        verdict: What the last token, or the end, calls for.
    """

    judge: Judge = field(repr=False)
    marker: str
    lexicon: Lexicon = field(repr=False)
    running: Running = field(repr=False)
    pending: bytes = field(default=b"", repr=False)
    position: int = 0
    trail: tuple[Place, ...] = ()
    soft: Mapping[int, float] = field(default_factory=dict)
    observed: int = 0
    raised: int = 0
    verdict: Verdict = ALLOW
    ended: bool = False

    @property
    def held(self) -> int:
        """Characters of the running sentence; none if nothing can come of what is found."""
        return self.running.end - self.running.floor if self.judge.acts and not self.ended else 0

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted in this choice so far, by the key it is noted under."""
        counted = {"semantic.observed": self.observed, "semantic.raised": self.raised}
        return {key: float(count) for key, count in counted.items() if count}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores with what is nearly too near made unlikely; the same object if none."""
        within = self.running.word > 0
        soft = {t: n for t, n in self.soft.items() if t < len(logits) and self._begins(t, within)}
        if not soft:
            return logits
        out = logits.clone()
        out[list(soft)] -= out.new_tensor(list(soft.values()))
        return out

    def _begins(self, token: int, within: bool) -> bool:
        """Return whether *token* would begin a word here."""
        text = self.lexicon.texts[token] or ""
        return not within or not in_word(text[:1] or "a")

    def advance(self, token: int) -> SemanticSession:
        """Return the session after *token*.

        Raises:
            GuardError: If the encoder breaks.
        """
        text, pending = self.lexicon.write(self.pending, token)
        place = () if self.pending else (Place(self.position, self.running.end, token),)
        placed = replace(
            self, trail=(*self.trail, *place), position=self.position + 1, pending=pending
        )
        return placed._after(*self.running.read(text))

    def read(self, text: str) -> SemanticSession:
        """Return the session after *text*, which a stop text may have cut within a token.

        What has ended within it was judged when the token was written.
        """
        place = Place(self.position, self.running.end, None)
        placed = replace(self, trail=(*self.trail, place), pending=b"")
        return replace(placed._after(*self.running.read(text)), verdict=ALLOW)

    def finish(self) -> SemanticSession:
        """Return the session after the end of the text, which ends its last sentence too.

        Raises:
            GuardError: If the encoder breaks.
        """
        running, pieces = self.running.read(self.lexicon.finish(self.pending))
        running, last = running.finish()
        return replace(self._after(running, (*pieces, *last)), pending=b"", ended=True)

    def notice(self, notes: Mapping[str, float], tokens: Sequence[int]) -> SemanticSession:
        """Return the session for which every suspect is open if the model was about to tell.

        Args:
            notes: What the chain noted where the last token was chosen.
            tokens: The reply so far.
        """
        if notes.get(MASKED, 0.0) < self.judge.policy.leak or not self.judge.watched:
            return self
        return replace(self, judge=self.judge.raised(), raised=self.raised + 1)

    def _after(self, running: Running, pieces: tuple[Piece, ...]) -> SemanticSession:
        findings = self.judge.judge(pieces) if pieces else ()
        trail = self.trail
        if running.floor != self.running.floor:
            trail = tuple(p for p in trail if p.offset >= running.floor)
        return replace(
            self,
            running=running,
            trail=trail,
            soft=self._softened(findings),
            observed=self.observed + sum(f.observed for f in findings),
            verdict=self._verdict(findings),
        )

    def _softened(self, findings: Iterable[Finding]) -> Mapping[int, float]:
        soft = self.soft
        for finding in findings:
            place = self._place(finding.piece) if finding.nats else None
            if place is not None and place.token is not None:
                nats = max(finding.nats, soft.get(place.token, 0.0))
                soft = {**soft, place.token: nats}
        return soft

    def _verdict(self, findings: Sequence[Finding]) -> Verdict:
        """Return the way back to the first piece that must not stand, or what is done instead."""
        instead = otherwise(findings, self.marker)
        if instead is None:
            return ALLOW
        first = min((f.piece for f in findings if f.action), key=lambda piece: piece.start)
        place = self._place(first)
        if place is None:
            return instead
        bans = frozenset(() if place.token is None else (place.token,))
        if first.kind == "word":
            return Rewind(place.position, bans, otherwise=instead)
        return Rewind(place.position, bans, self.judge.policy.retries, instead)

    def _place(self, piece: Piece) -> Place | None:
        """Return the token that begins *piece*; of one that began before it, the next.

        What such a token wrote first may have left.
        """
        held = [p for p in self.trail if piece.floor <= p.offset < piece.end]
        writing = [p for p in held if p.offset <= piece.start]
        return writing[-1] if writing else next(iter(held), None)
