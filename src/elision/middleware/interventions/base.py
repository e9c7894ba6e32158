"""The chain: a choice's open sessions, in the order in which they act."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from elision.contract import (
    Allow,
    BranchKey,
    Context,
    Here,
    Recipe,
    Session,
    Stage,
    Verdict,
    in_order,
)

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Conceals(Protocol):
    """A session that lets a token be chosen which must not be named as an alternative."""

    def conceal(self, scores: Tensor) -> Tensor:
        """Return *scores* with what must not be named at ``-inf``; the same object if none is."""
        ...


@runtime_checkable
class Reads(Protocol):
    """A session that can take in text which no whole token wrote."""

    def read(self, text: str) -> Session:
        """Return the session after *text*; its verdict speaks of the end of *text* alone."""
        ...


@runtime_checkable
class Tallies(Protocol):
    """A session that keeps count over the whole reply, its end included."""

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted so far, by the key it is noted under."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A session that knows where what it forbids has begun."""

    @property
    def n_growing(self) -> int:
        """Tokens at the end of the reply that have begun it."""
        ...


@runtime_checkable
class Notices(Protocol):
    """A session that learns from what the chain noted where a token was chosen."""

    def notice(self, notes: Mapping[str, float], tokens: Sequence[int]) -> Session:
        """Return the session that knows of *notes*; *tokens* is the reply, that token included."""
        ...


@runtime_checkable
class Contrasts(Protocol):
    """A session that reads other scores for the same position beside the model's own."""

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """All that it may ever read."""
        ...

    @property
    def always(self) -> bool:
        """Whether it reads all of them at every position: then they are fetched with the row."""
        ...

    def needs(self, here: Here) -> tuple[BranchKey, ...]:
        """Return what `adjust` will read at *here*; asked before it, answered from the raw row."""
        ...


@runtime_checkable
class StandsFor(Protocol):
    """A recipe that stands for another: what it does is told under the other's name."""

    @property
    def inner(self) -> Recipe:
        """The other."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """Open sessions in order. A value like its members: advancing leaves the old chain intact.

    Attributes:
        early: Sessions up to entropy shaping; the scores behind them are the reported ones.
        late: Temperature, truncation, forced tokens.
    """

    early: tuple[Session, ...] = ()
    late: tuple[Session, ...] = ()

    @classmethod
    def begin(cls, recipes: Iterable[Recipe], context: Context) -> Chain:
        """Open one session per recipe, ordered by stage and rank."""
        ordered = in_order(recipes)
        return cls(
            early=tuple(r.begin(context) for r in ordered if r.stage < Stage.TEMPERATURE),
            late=tuple(r.begin(context) for r in ordered if r.stage >= Stage.TEMPERATURE),
        )

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All of them, in order."""
        return self.early + self.late

    @property
    def held(self) -> int:
        """Characters at the end of the text that some session still holds."""
        return max((session.held for session in self.sessions), default=0)

    @property
    def n_growing(self) -> int:
        """Tokens at the end of the reply that begin something forbidden."""
        return max((s.n_growing for s in self.early if isinstance(s, Grows)), default=0)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the sessions call for, those that allow left out."""
        verdicts = (session.verdict for session in self.sessions)
        return tuple(verdict for verdict in verdicts if not isinstance(verdict, Allow))

    @property
    def branches(self) -> Mapping[BranchKey, bool]:
        """What some session may read beside the row, and whether some reads it everywhere."""
        found: dict[BranchKey, bool] = {}
        for session in self.early:
            if isinstance(session, Contrasts):
                for key in session.branches:
                    found[key] = found.get(key, False) or session.always
        return found

    def needs(self, here: Here) -> tuple[BranchKey, ...]:
        """Return what some session will read beside the row at *here*, each once."""
        sessions = (s for s in self.early if isinstance(s, Contrasts))
        return tuple(dict.fromkeys(key for s in sessions for key in s.needs(here)))

    def score(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores that are reported: masked and shaped, before temperature."""
        for session in self.early:
            logits = session.adjust(logits, here)
        return logits

    def choose_from(self, scores: Tensor, here: Here) -> Tensor:
        """Return the scores that the token is drawn from."""
        for session in self.late:
            scores = session.adjust(scores, here)
        return scores

    def rows(self, logits: Tensor, here: Here) -> tuple[Tensor, ...]:
        """Return *logits* and the scores behind every session, in order: `adjust`, watched."""
        rows = [logits]
        for session in self.sessions:
            rows.append(session.adjust(rows[-1], here))
        return tuple(rows)

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Run the whole chain on one row, shape ``(vocab,)``; the same object if nobody acts."""
        return self.choose_from(self.score(logits, here), here)

    def conceal(self, scores: Tensor) -> Tensor:
        """Return *scores* without the tokens that may not even be named."""
        for session in self.early:
            if isinstance(session, Conceals):
                scores = session.conceal(scores)
        return scores

    @property
    def tally(self) -> Mapping[str, float]:
        """What the sessions counted over the whole reply."""
        tallies = (s.tally for s in self.early if isinstance(s, Tallies))
        return {key: count for tally in tallies for key, count in tally.items()}

    def advance(self, token: int) -> Chain:
        """Return the chain after *token*."""
        return Chain(
            early=tuple(session.advance(token) for session in self.early),
            late=tuple(session.advance(token) for session in self.late),
        )

    def notice(self, notes: Mapping[str, float], tokens: Sequence[int]) -> Chain:
        """Return the chain that knows what was noted where the last of *tokens* was chosen."""
        if not notes or not any(isinstance(s, Notices) for s in self.early):
            return self
        early = (s.notice(notes, tokens) if isinstance(s, Notices) else s for s in self.early)
        return Chain(early=tuple(early), late=self.late)

    def read(self, text: str) -> Chain:
        """Return the chain after *text*: a reply that a stop text cut in the middle of a token."""
        return Chain(
            early=tuple(s.read(text) if isinstance(s, Reads) else s for s in self.early),
            late=self.late,
        )

    def finish(self) -> Chain:
        """Return the chain after the end of the text."""
        return Chain(
            early=tuple(session.finish() for session in self.early),
            late=tuple(session.finish() for session in self.late),
        )
