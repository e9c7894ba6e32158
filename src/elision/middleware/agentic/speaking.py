"""A client as a role's voice: for agents of one's own, with every guard in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from elision.agents.speaking import Said, counted

if TYPE_CHECKING:
    from typing import Any

    from elision.contract import Completion, Message


class Chats(Protocol):
    """What answers conversations: `elision.Client` does."""

    model: str

    async def achat(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Return the reply to *messages*."""
        ...

    def may_say(self, text: str) -> bool:
        """Return whether *text* may leave."""
        ...


class ClientSpeaker:
    """Speaks through a client; see `elision.agents.speaking.Speaker`.

    Args:
        client: Stays the caller's; it is not closed here.
        profile: Under which it speaks.

    Attributes:
        name: The client's model.
    """

    def __init__(self, client: Chats, *, profile: str = "guarded") -> None:
        self.name = client.model
        self._client = client
        self._profile = profile

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`."""
        begun = time.perf_counter()
        told = await self._client.achat(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            profile=self._profile,
        )
        wall_ms = (time.perf_counter() - begun) * 1e3
        return counted(told.text, told.usage, messages, wall_ms)

    async def passes(self, text: str) -> bool:
        """See `elision.agents.speaking.Guarded`."""
        return await asyncio.to_thread(self._client.may_say, text)
