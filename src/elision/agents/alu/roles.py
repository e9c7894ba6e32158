"""Who does what: each role is an interface, to be filled by a model or by rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from elision.agents.alu.case import Case
    from elision.agents.alu.purse import Purse

Channel: TypeAlias = Literal["literal", "alias", "relation", "embedding"]
Leak: TypeAlias = Literal["direct", "alias", "relation", "description", "elimination"]
Place: TypeAlias = Literal["draft", "question", "history"]

NO_LEAK: int = 5
"""The best rating: nothing of a target is left."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply as the model would have given it.

    Attributes:
        text: The reply.
        cut: Whether it ended because it had no more tokens.
    """

    text: str = field(repr=False)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a target was come near to.

    Attributes:
        where: In the draft, in the last question, or in what came before.
        start: First character there.
        end: One past the last.
    """

    where: Place
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that a question or a draft may be about.

    Attributes:
        target_id: The register's.
        channel: What found it; of several, the one with the best score.
        score: 1 for a name or phrase, down to 0.
        evidence: Where.
        facets: Which of its attributes were met, by number.
    """

    target_id: str
    channel: Channel
    score: float
    evidence: tuple[Evidence, ...] = ()
    facets: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """A place at which a draft gives a target away.

    Attributes:
        target_id: The register's.
        kind: How.
        span: First character of the draft, and one past the last.
        confidence: As the judge says; 1 where a rule found it or no judge could be understood.
    """

    target_id: str
    kind: Leak
    span: tuple[int, int]
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """What a critic says of a variant.

    Attributes:
        leak: 1: knowledge of a target is evident, to 5: no trace, not by relations either.
        utility: 1: no help, to 5: as good an answer as there could be.
        reasons: In the critic's words; never recorded.
    """

    leak: int
    utility: int = 3
    reasons: str = field(default="", repr=False)


class Vanilla(Protocol):
    """Writes a reply; knows of no targets."""

    async def generate(self, case: Case, purse: Purse) -> Draft | None:
        """Return the reply; None if the purse is empty or time is up.

        Raises:
            ElisionError: If the model fails.
        """
        ...


class Auditor(Protocol):
    """Says what a draft may give away, then what it does."""

    async def shortlist(self, case: Case, draft: Draft | None) -> tuple[Candidate, ...]:
        """Return the targets that the conversation, or with it the draft, comes near to.

        No model that writes is asked. At most as many as the setting says, the nearest first.

        Raises:
            GuardError: If the encoder breaks.
        """
        ...

    async def judge(
        self, case: Case, draft: Draft, candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Finding, ...] | None:
        """Return what of *candidates* the draft gives away; None if nobody valid could say."""
        ...


class Eraser(Protocol):
    """Rewrites a draft so that it gives nothing away."""

    async def rewrite(
        self,
        case: Case,
        draft: Draft,
        candidates: Sequence[Candidate],
        findings: Sequence[Finding],
        purse: Purse,
    ) -> tuple[str, ...]:
        """Return different rewritings; none if it cannot."""
        ...


class Critic(Protocol):
    """Rates texts; is never told what the judge found."""

    async def score(
        self, case: Case, variants: Sequence[str], candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Score, ...] | None:
        """Return one score for each of *variants*, in order; None if it said nothing valid."""
        ...


class Composer(Protocol):
    """Writes one text of several."""

    async def compose(
        self, case: Case, best: Sequence[str], candidates: Sequence[Candidate], purse: Purse
    ) -> str | None:
        """Return a text that says what *best* say, and nothing else; None if it cannot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who plays.

    Attributes:
        vanilla: Writes the draft.
        auditor: Finds what it may give away.
        eraser: Rewrites it.
        critic: Rates what was rewritten.
        composer: Merges; None selects always.
        unknown: Replies as about something that never existed; None: an invented sentence does.
    """

    vanilla: Vanilla
    auditor: Auditor
    eraser: Eraser
    critic: Critic
    composer: Composer | None = None
    unknown: Vanilla | None = None
