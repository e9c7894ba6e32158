"""``POST /v1/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.middleware.gateway.replies import Shape, reply
from elision.middleware.rendering import TextChunks, text_completion
from elision.middleware.wire import parse_completion

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

TEXT = Shape(prefix="cmpl-", parse=parse_completion, chunks=TextChunks, whole=text_completion)


async def create_completion(request: Request) -> Response:
    """Continue one prompt or several."""
    return await reply(request, TEXT)
