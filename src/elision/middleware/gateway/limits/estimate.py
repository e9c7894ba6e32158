"""What a request may take at most: its prompt, estimated, and the longest reply it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from elision.contract import Request, text_of

BYTES_PER_TOKEN: Final = 4
"""Of text in UTF-8; what OpenAI's own limits are said to count by. Settled when usage is known."""

MESSAGE_TOKENS: Final = 4
"""What a template adds to each message."""

REPLY_TOKENS: Final = 512
"""Reserved for a choice whose request names no limit; what is written beyond is owed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may take.

    Attributes:
        prompt: Tokens of its prompts.
        named: Tokens that its replies may have, as far as it says so.
        unnamed: Tokens set aside for replies of which it does not.
    """

    prompt: int = 0
    named: int = 0
    unnamed: int = 0

    @property
    def at_least(self) -> int:
        """What it must be able to have."""
        return max(1, self.prompt + self.named)

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Self:
        """Return what *requests*, answered as one, may take."""
        prompt = named = unnamed = 0
        for request in requests:
            prompt += _prompt_tokens(request)
            if request.max_tokens is None:
                unnamed += request.n * REPLY_TOKENS
            else:
                named += request.n * request.max_tokens
        return cls(prompt, named, unnamed)


def text_tokens(text: str) -> int:
    """Return about how many tokens *text* has."""
    n_bytes = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return -(-n_bytes // BYTES_PER_TOKEN)


def _prompt_tokens(request: Request) -> int:
    if request.kind == "text":
        prompt = request.prompt
        return text_tokens(prompt) if isinstance(prompt, str) else len(prompt)
    said = sum(MESSAGE_TOKENS + _message_tokens(message) for message in request.messages)
    tools = request.extra.get("tools")
    return said + (len(orjson.dumps(tools)) // BYTES_PER_TOKEN if tools else 0)


def _message_tokens(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls")
    written = len(orjson.dumps(calls)) // BYTES_PER_TOKEN if calls else 0
    return text_tokens(text_of(message)) + written
