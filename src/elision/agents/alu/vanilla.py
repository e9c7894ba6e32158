"""The first voice: it answers what was asked, and knows of no targets."""

from __future__ import annotations

from collections.abc import Sequence

from elision.agents.alu import prompts
from elision.agents.alu.case import Case
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Draft
from elision.agents.speaking import Speaker
from elision.contract import Message


class SpeakerVanilla:
    """A model's own answer.

    Args:
        speaker: The model.
        config: Says how long a draft may be.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        self._speaker = speaker
        self._config = config

    async def generate(self, case: Case, purse: Purse) -> Draft | None:
        """See `Vanilla.generate`."""
        return await _written("vanilla", self._speaker, case, case.messages, self._config, purse)


class SpeakerUnknown:
    """A model that is told to have never heard of what is asked about.

    Args:
        speaker: The model.
        config: Says how long a reply may be.
    """

    def __init__(self, speaker: Speaker, config: AluConfig) -> None:
        self._speaker = speaker
        self._config = config

    async def generate(self, case: Case, purse: Purse) -> Draft | None:
        """See `Vanilla.generate`."""
        messages = prompts.for_unknown(case.recent(self._config.n_turns))
        return await _written("unknown", self._speaker, case, messages, self._config, purse)


async def _written(
    role: str,
    speaker: Speaker,
    case: Case,
    messages: Sequence[Message],
    config: AluConfig,
    purse: Purse,
) -> Draft | None:
    most = case.max_tokens or config.max_tokens
    said = await purse.say(
        role,
        speaker,
        messages,
        max_tokens=most,
        temperature=case.temperature,
        seed=case.seed,
    )
    if said is None:
        return None
    return Draft(said.text, cut=not said.estimated and said.usage.completion_tokens >= most)
