"""Compares the words and sentences of one reply with what the suspects must not have said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from elision.contract import Redact, Refuse
from elision.guards.gate.assessment import Assessment, Level
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.semantic.policy import SemanticPolicy
from elision.guards.semantic.quantities import Quantities, is_trivial, quantities
from elision.guards.semantic.semantics import Answer, Semantics, Subject, function_words
from elision.guards.semantic.sentences import Piece, plain, views, words

if TYPE_CHECKING:
    from elision.guards.semantic.semantics import Vectors
    from elision.guards.targets import Action

_STRICTEST: Final[tuple[Action, ...]] = ("refuse", "restrict", "redact")


class Finding(NamedTuple):
    """What a piece of the reply says of the suspects.

    Attributes:
        piece: Which.
        action: What the strictest of the targets concerned asks for; None if none but observed
            ones are, or the piece is only to be made unlikely.
        observed: How many targets that only observe are concerned.
        nats: What the token that began the word is to lose when it is seen again.
    """

    piece: Piece
    action: Action | None = None
    observed: int = 0
    nats: float = 0.0


class Known(NamedTuple):
    """What the caller said himself.

    Attributes:
        words: The normal forms of his words.
        text: All of it in N_b, between separators.
        quantities: His numbers and dates.
    """

    words: frozenset[str]
    text: str
    quantities: Quantities

    @classmethod
    def of(cls, text: str) -> Known:
        """Read the caller's own text."""
        shown = plain(text)
        return cls(frozenset(map(N, words(shown))), _apart(shown), quantities(shown))


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares finished words and sentences with the suspects. Immutable; one serves a choice.

    Attributes:
        semantics: Embeds, and knows the thresholds.
        opened: Suspects for which every comparison is made.
        watched: Suspects for which sentences are compared, but a number alone tells nothing.
        known: What the caller said himself.
    """

    semantics: Semantics
    opened: tuple[Subject, ...]
    watched: tuple[Subject, ...]
    known: Known = field(repr=False)

    @classmethod
    def of(cls, semantics: Semantics, assessment: Assessment, user_text: str) -> Judge:
        """Return the judge for a prompt that the gate has assessed.

        Raises:
            GuardError: If the encoder breaks, or the gate names a target that is not compiled.
        """
        opened = opened_by(assessment, semantics.policy)
        watched = [s.target_id for s in assessment.suspects if s.target_id not in opened]
        subjects = semantics.subjects([*opened, *watched])
        return cls(
            semantics,
            tuple(s for s in subjects if s.target_id in opened),
            tuple(s for s in subjects if s.target_id not in opened),
            Known.of(user_text),
        )

    @property
    def policy(self) -> SemanticPolicy:
        """The thresholds."""
        return self.semantics.policy

    @property
    def acts(self) -> bool:
        """Whether a finding may change the reply; if not, nothing need be held."""
        return any(s.action != "observe" for s in (*self.opened, *self.watched))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compare with."""
        return not self.opened and not self.watched

    def raised(self) -> Judge:
        """Return a judge for whom every suspect is open."""
        return replace(self, opened=(*self.opened, *self.watched), watched=())

    def judge(self, pieces: Iterable[Piece]) -> tuple[Finding, ...]:
        """Return what is to be said of *pieces*, in order; the encoder is asked once.

        Raises:
            GuardError: If the encoder breaks.
        """
        texts = {piece: self._texts(piece) for piece in pieces if self._concerns(piece)}
        asked = list(dict.fromkeys(text for some in texts.values() for text in some))
        vectors = self.semantics.embed(asked) if asked else None
        place = {text: row for row, text in enumerate(asked)}
        found = []
        for piece, some in texts.items():
            own = None if vectors is None else vectors[[place[text] for text in some]]
            found += [self._word(piece, own) if piece.kind == "word" else self._said(piece, own)]
        return tuple(f for f in found if f.action or f.observed or f.nats)

    def _concerns(self, piece: Piece) -> bool:
        """Return whether *piece* is judged: the caller's own words and the commonest are not."""
        if piece.kind == "sentence":
            return True
        form = N(piece.text)
        passed = not form or form in function_words() or form in self.known.words
        return not passed and any(subject.by_word for subject in self.opened)

    def _texts(self, piece: Piece) -> tuple[str, ...]:
        """Return what of *piece* is embedded: not a number that stands alone."""
        if piece.kind == "sentence":
            return views(plain(piece.text))
        return () if N(piece.text).isdigit() else (plain(piece.text).lower(),)

    # --- a word ------------------------------------------------------------------------------

    def _word(self, piece: Piece, own: Vectors | None) -> Finding:
        policy, form, nats = self.policy, _apart(piece.text), 0.0
        hits = []
        for subject in (s for s in self.opened if s.by_word):
            cosine = nearest(own, subject.entities)
            if cosine >= policy.word or any(answer.bare == form for answer in subject.answers):
                hits.append(subject)
            elif cosine >= policy.soft and subject.action != "observe":
                nats = max(nats, policy.kappa * (cosine - policy.soft))
        return _finding(piece, hits, nats)

    # --- a sentence --------------------------------------------------------------------------

    def _said(self, piece: Piece, own: Vectors | None) -> Finding:
        said = _Said.of(piece)
        hits = [s for s in self.opened if self._tells(s, said, own, is_open=True)]
        hits += [s for s in self.watched if self._tells(s, said, own, is_open=False)]
        return _finding(piece, hits)

    def _tells(self, subject: Subject, said: _Said, own: Vectors | None, *, is_open: bool) -> bool:
        """Return whether a sentence tells what *subject* must not have told."""
        if nearest(own, subject.vectors) >= self.policy.sentence:
            return True
        return any(self._names(subject, a, said, own, is_open) for a in subject.answers)

    def _names(
        self, subject: Subject, answer: Answer, said: _Said, own: Vectors | None, is_open: bool
    ) -> bool:
        """Return whether a sentence has a number, a date or the whole of a short answer in common.

        That alone decides where the gate is open, unless the caller said it himself or it is a
        small number in a longer answer. Else the sentence must also come near: to the answer, or
        where that is too short to be near to, to any answer of the target.
        """
        common = answer.quantities.common(said.quantities)
        is_bare = bool(answer.bare) and answer.bare in said.text
        if not common and not is_bare:
            return False
        if is_open and is_bare and answer.bare not in self.known.text:
            return True
        telling = common - self.known.quantities.implied
        if is_open and not all(is_trivial(q, below=10 if answer.bare else 100) for q in telling):
            return True
        rows = subject.vectors if answer.bare else subject.vectors[answer.rows]
        return nearest(own, rows) >= self.policy.near


class _Said(NamedTuple):
    """A sentence: in N_b between separators, and the numbers and dates that the reply wrote."""

    text: str
    quantities: Quantities

    @classmethod
    def of(cls, piece: Piece) -> _Said:
        shown, lead = plain(piece.text), plain(piece.text[: piece.lead])
        return cls(_apart(shown), quantities(shown).without(quantities(lead)))


def opened_by(assessment: Assessment, policy: SemanticPolicy) -> tuple[str, ...]:
    """Return the suspects for which the gate is open.

    The best one always is, for the level may have been raised; others are if their own score opens
    the gate.
    """
    if assessment.level < Level.OPEN:
        return ()
    best, *others = assessment.suspects or (None,)
    return tuple(
        s.target_id for s in (best, *others) if s and (s is best or s.score >= policy.opens)
    )


def otherwise(findings: Iterable[Finding], marker: str) -> Redact | Refuse | None:
    """Return what is done about *findings* where nothing can be chosen otherwise.

    `restrict` and `refuse` end the answer; `redact` covers all of the pieces. None: nothing.
    """
    acting = [finding for finding in findings if finding.action]
    if not acting:
        return None
    if any(finding.action != "redact" for finding in acting):
        return Refuse()
    pieces = [finding.piece for finding in acting]
    return Redact(min(p.start for p in pieces), max(p.end for p in pieces), marker)


def nearest(own: Vectors | None, others: Vectors) -> float:
    """Return the greatest cosine between rows of *own* and of *others*; -1 if there are none."""
    return float((own @ others.T).max()) if own is not None and len(own) and len(others) else -1.0


def _finding(piece: Piece, hits: Sequence[Subject], nats: float = 0.0) -> Finding:
    actions = {subject.action for subject in hits}
    action: Action | None = next((action for action in _STRICTEST if action in actions), None)
    n_observed = sum(subject.action == "observe" for subject in hits)
    return Finding(piece, action, n_observed, 0.0 if action else nats)


def _apart(text: str) -> str:
    return SEP + N_b(text).strip(SEP) + SEP
