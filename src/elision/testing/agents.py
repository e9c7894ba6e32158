"""Agents for tests that are about something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.errors import ConfigError

if TYPE_CHECKING:
    from elision.memory.memory import Memory
    from elision.middleware.agentic.agentic import Agentic


def forgetful() -> Agentic:
    """Return what works on requests of the profile ``agentic`` without any memory."""
    from elision.agents.atlas.config import AtlasConfig
    from elision.middleware.agentic.agentic import Agentic
    from elision.middleware.remembering import MemorySource

    return Agentic(MemorySource(_nothing), AtlasConfig(learning="off"))


def _nothing() -> Memory:
    raise ConfigError("this agent remembers nothing")
