"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.middleware.gateway.replies import Shape, reply
from elision.middleware.rendering import ChatChunks, chat_completion
from elision.middleware.wire import parse_chat

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

CHAT = Shape(prefix="chatcmpl-", parse=parse_chat, chunks=ChatChunks, whole=chat_completion)


async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation."""
    return await reply(request, CHAT)
