"""The critic: rates texts by themselves; what the judge said it never hears."""

from __future__ import annotations

from collections.abc import Sequence

from elision.agents.alu import prompts
from elision.agents.alu.answers import Ratings, only
from elision.agents.alu.auditor import subjects_of
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Candidate, Score
from elision.agents.speaking import Speaker


class SpeakerCritic:
    """A model that rates all variants in one call.

    Args:
        speaker: The model; better not the one that judges.
        config: See `AluConfig`.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        self._speaker = speaker
        self._config = config

    async def score(
        self, case: Case, variants: Sequence[str], candidates: Sequence[Candidate], purse: Purse
    ) -> tuple[Score, ...] | None:
        """See `Critic.score`. Too few scores, or any that is no whole number, make all invalid."""
        opaque = {f"T{n}": one.target_id for n, one in enumerate(candidates, start=1)}
        reply = await purse.hear(
            "critic",
            self._speaker,
            prompts.for_critic(
                case.recent(self._config.n_turns), variants, subjects_of(case, opaque)
            ),
            max_tokens=self._config.judge_tokens,
            seed=case.seed,
        )
        return None if reply is None else scores_in(reply, len(variants))


def scores_in(reply: str, n: int) -> tuple[Score, ...] | None:
    """Return the scores that a critic gave *n* variants, in order; None unless it rated each."""
    found = only(reply, Ratings)
    if isinstance(found, str) or [one.variant for one in found.scores] != [*range(n)]:
        return None
    return tuple(Score(one.leak, one.utility, one.reasons) for one in found.scores)
