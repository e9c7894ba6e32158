"""Refusal by similarity: a prompt too near to a probe is not answered at all."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elision.contract import ALLOW, REFUSE, Context, Here, Stage, Verdict
from elision.errors import ConfigError
from elision.guards.gate.assessment import Assessment

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLD: Final = 0.80
"""Cosine above which a prompt is refused (guard.md 2.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurateRefusal:
    """Refuse a prompt whose likeness to a probe exceeds a threshold; leave all others alone.

    A recipe. Nothing else of the semantic layer: an answer that has begun is not looked at. Put
    `refusals.refusal_for` into the plan's ``refusal``.

    Attributes:
        assessment: What the gate says, or will say: it is waited for when a session begins. If
            the gate breaks, so does the request.
        threshold: Cosine in [-1, 1] above which to refuse.
        name_bonus: What the gate adds to the score of a target whose name stands in the prompt;
            it is taken off again, for the method compares plain cosines.

    Source:
        CURaTE (guard.md 2.6). Ours: the prompt's views in the place of the whole prompt, and the
        encoder is not fine-tuned.
    """

    assessment: Assessment | Future[Assessment]
    threshold: float = THRESHOLD
    name_bonus: float = 0.0
    rank: int = 0
    stage = Stage.SIGNAL

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ConfigError(f"the threshold is {self.threshold}; a cosine lies in [-1, 1]")

    def begin(self, context: Context) -> CurateSession:
        """Open a session for one choice; its verdict stands before the first token."""
        found = self.assessment
        assessment = found.result() if isinstance(found, Future) else found
        cosine = self.cosine(assessment)
        return CurateSession(cosine, REFUSE if cosine > self.threshold else ALLOW)

    def cosine(self, assessment: Assessment) -> float:
        """Return the greatest cosine in *assessment*, bonuses for names aside."""
        if not assessment.suspects:
            return assessment.score
        return max(s.score - self.name_bonus * s.named for s in assessment.suspects)


@dataclass(frozen=True, slots=True)
class CurateSession:
    """One choice under a `CurateRefusal`.

    Attributes:
        cosine: Of the prompt and the nearest probe.
        verdict: `Refuse` from the beginning on, or `ALLOW`.
    """

    cosine: float
    verdict: Verdict
    held = 0

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores."""
        return logits

    def advance(self, token: int) -> CurateSession:
        """Return the very same session."""
        return self

    def finish(self) -> CurateSession:
        """Return the very same session."""
        return self
