"""The eraser: rewrites a draft several times, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from elision.agents.alu import prompts
from elision.agents.alu.answers import Variants, only
from elision.agents.alu.auditor import subjects_of
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Candidate, Draft, Finding
from elision.agents.speaking import Speaker


class SpeakerEraser:
    """A model that rewrites.

    Args:
        speaker: The model.
        config: See `AluConfig`.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        self._speaker = speaker
        self._config = config

    async def rewrite(
        self,
        case: Case,
        draft: Draft,
        candidates: Sequence[Candidate],
        findings: Sequence[Finding],
        purse: Purse,
    ) -> tuple[str, ...]:
        """See `Eraser.rewrite`. One call, and no second one for a reply of no use."""
        opaque = {f"T{n}": one.target_id for n, one in enumerate(candidates, start=1)}
        quotes = dict.fromkeys(draft.text[slice(*one.span)] for one in findings)
        asked = prompts.for_eraser(
            case.recent(self._config.n_turns),
            draft.text,
            subjects_of(case, opaque),
            [*quotes],
            self._config.n_variants,
        )
        reply = await purse.hear(
            "eraser",
            self._speaker,
            asked,
            max_tokens=self._room(case),
            temperature=self._config.temperature,
            seed=case.seed,
        )
        found = "no reply" if reply is None else only(reply, Variants)
        if isinstance(found, str):
            return ()
        texts = dict.fromkeys(text.strip() for text in found.variants)
        return tuple(text for text in texts if text)[: self._config.n_variants]

    def _room(self, case: Case) -> int:
        """Return the tokens that all variants take, each as long as a draft may be."""
        return self._config.n_variants * (case.max_tokens or self._config.max_tokens)
