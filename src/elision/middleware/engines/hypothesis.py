"""A beam and who scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from elision.contract import Context, Finish, Redact, Refuse, Rewind, Session
from elision.middleware.interventions.base import Chain

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class BeamScorer(Protocol):
    """A recipe that scores beams: it takes something off the candidates' log-probability."""

    @property
    def width(self) -> int:
        """Beams wanted."""
        ...

    def acts(self) -> bool:
        """Whether this prompt concerns it; if it concerns no scorer, nothing is searched."""
        ...

    def seeing(self, hidden: Tensor) -> Self:
        """Return the recipe that knows the prompt's mean hidden state, shape ``(D,)``."""
        ...

    def begin(self, context: Context) -> Session:
        """Open a session; one per beam follows from it."""
        ...

    def penalties(
        self, sessions: Sequence[Session], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return what each candidate of each beam loses, in nats >= 0; ``inf`` drops it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A reply or the beginning of one. A value.

    Attributes:
        chain: The sessions behind its tokens.
        states: The scorers' sessions, likewise.
        tokens: Written so far, the end token left out.
        score: Sum of log-probabilities in nats, penalties taken off; no length normalisation.
        text: What the tokens write.
        pending: Bytes that wait for the rest of their character.
        spans: What is to be redacted of the text.
        finish: Why it ended; None while it goes on.
    """

    chain: Chain
    states: tuple[Session, ...] = ()
    tokens: tuple[int, ...] = ()
    score: float = 0.0
    text: str = ""
    pending: bytes = b""
    spans: tuple[Redact, ...] = ()
    finish: Finish | None = None

    def judged(self) -> Hypothesis | None:
        """Return it with what its sessions want redacted; None if they do not let it stand."""
        spans = self.spans
        for verdict in self.chain.verdicts:
            if isinstance(verdict, Refuse | Rewind):
                return None
            if isinstance(verdict, Redact):
                spans = (*spans, verdict)
        return replace(self, spans=spans)
