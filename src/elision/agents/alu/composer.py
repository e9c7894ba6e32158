"""The composer: merges the best variants into one text, which is audited once more."""

from __future__ import annotations

from collections.abc import Sequence

from elision.agents.alu import prompts
from elision.agents.alu.answers import Composed, only
from elision.agents.alu.auditor import subjects_of
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Candidate
from elision.agents.speaking import Speaker


class SpeakerComposer:
    """A model that merges.

    Args:
        speaker: The model.
        config: See `AluConfig`.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        self._speaker = speaker
        self._config = config

    async def compose(
        self, case: Case, best: Sequence[str], candidates: Sequence[Candidate], purse: Purse
    ) -> str | None:
        """See `Composer.compose`."""
        opaque = {f"T{n}": one.target_id for n, one in enumerate(candidates, start=1)}
        reply = await purse.hear(
            "composer",
            self._speaker,
            prompts.for_composer(
                case.recent(self._config.n_turns), best, subjects_of(case, opaque)
            ),
            max_tokens=case.max_tokens or self._config.max_tokens,
            seed=case.seed,
        )
        found = "no reply" if reply is None else only(reply, Composed)
        return None if isinstance(found, str) else found.reply.strip() or None
