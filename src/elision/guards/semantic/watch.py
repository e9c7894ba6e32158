"""The semantic layer on an engine with scores: judge words and sentences, and go back."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from elision.contract import REFUSE, Context, Stage
from elision.errors import ElisionError
from elision.guards.gate.assessment import Assessment, Level
from elision.guards.phrases.holdback import REDACTED
from elision.guards.semantic.judge import Judge, opened_by
from elision.guards.semantic.semantics import Semantics, broken
from elision.guards.semantic.sentences import Running
from elision.guards.semantic.session import ClosedSession, SemanticSession


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticWatch:
    """Compare each word and sentence with what the suspects must not have said; go back if near.

    A recipe, made per request. What it does to scores is a soft bias, hence its stage; its hard
    side are verdicts, which have no order. Closed, it does nothing and holds nothing. Watching or
    open it holds the running sentence, so that whatever a verdict concerns has not left.

    Attributes:
        semantics: The tenant's.
        assessment: What the gate says of the prompt; done by the time a session begins.
        marker: What stands in the place of a redacted piece.
    """

    semantics: Semantics = field(repr=False)
    assessment: Assessment | Future[Assessment]
    marker: str = REDACTED
    rank: int = 10
    stage = Stage.SOFT_BIAS

    def __post_init__(self) -> None:
        if isinstance(self.assessment, Future):
            self.assessment.add_done_callback(self._prefetch)
        else:
            self._embed_ahead(self.assessment)

    def _prefetch(self, assessed: Future[Assessment]) -> None:
        """Have the suspects' vectors made while the prompt is still being read."""
        if not assessed.cancelled() and assessed.exception() is None:
            self._embed_ahead(assessed.result())

    def _embed_ahead(self, assessment: Assessment) -> None:
        try:
            self.semantics.prefetch(s.target_id for s in assessment.suspects)
        except ElisionError:
            return  # whoever begins a session meets the same failure, and stops there

    def begin(self, context: Context) -> SemanticSession | ClosedSession:
        """Open a session for one choice; waits for the gate and for the suspects' vectors.

        Raises:
            GuardError: If the gate or the encoder broke, or took longer than the policy allows.
        """
        assessment = assessed(self.assessment, self.semantics)
        if refuses(self.semantics, assessment):
            return ClosedSession(self.semantics, self.marker, context, REFUSE)
        if assessment.level == Level.CLOSED:
            return ClosedSession(self.semantics, self.marker, context)
        judge = Judge.of(self.semantics, assessment, context.user_text)
        if judge.idle:
            return ClosedSession(self.semantics, self.marker, context)
        running = Running.after(context.before)
        return SemanticSession(judge, self.marker, context.lexicon, running)


def assessed(assessment: Assessment | Future[Assessment], semantics: Semantics) -> Assessment:
    """Return what the gate says.

    Raises:
        GuardError: If it broke or takes too long.
    """
    if isinstance(assessment, Assessment):
        return assessment
    try:
        return assessment.result(semantics.policy.timeout_s)
    except Exception as error:  # whatever broke, nothing passes a broken guard
        raise broken(error) from (error if isinstance(error, ElisionError) else None)


def refuses(semantics: Semantics, assessment: Assessment) -> bool:
    """Return whether a suspect for which the gate is open wants the prompt refused."""
    opened = opened_by(assessment, semantics.policy)
    return any(semantics.action(target_id) == "refuse" for target_id in opened)
