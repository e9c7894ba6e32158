"""Agents for tests that are about something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.agents.speaking import Said, counted
from elision.contract import Message, Usage, text_of
from elision.errors import ConfigError, UpstreamError

if TYPE_CHECKING:
    from elision.memory.memory import Memory
    from elision.middleware.agentic.agentic import Agentic


class ScriptedSpeaker:
    """Says one line after the other, and keeps what it was asked; behind the last line it fails.

    Args:
        lines: What it says; an exception is raised instead.

    Attributes:
        name: ``scripted``.
        asked: The text of each prompt, in order.
        temperatures: With which it was asked.
    """

    def __init__(self, *lines: str | Exception) -> None:
        self.name = "scripted"
        self.asked: list[str] = []
        self.temperatures: list[float] = []
        self._lines = list(lines)

    @property
    def n_left(self) -> int:
        """Lines that were not said."""
        return len(self._lines)

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`."""
        self.asked.append("\n".join(map(text_of, messages)))
        self.temperatures.append(temperature)
        line = self._lines.pop(0) if self._lines else UpstreamError("there is no line left")
        if isinstance(line, Exception):
            raise line
        return counted(line, Usage(), messages, 0.0)


def forgetful() -> Agentic:
    """Return what works on requests of the profile ``agentic`` without any memory."""
    from elision.agents.atlas.config import AtlasConfig
    from elision.middleware.agentic.agentic import Agentic
    from elision.middleware.remembering import MemorySource

    return Agentic(MemorySource(_nothing), AtlasConfig(learning="off"))


def _nothing() -> Memory:
    raise ConfigError("this agent remembers nothing")
