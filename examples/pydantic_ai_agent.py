"""An agent of pydantic-ai on Elision: a tool, an answer of a type, a stream.

Needs ``pip install 'pydantic-ai-slim[openai]'``, and a server before a model that can call tools:
for example ``elision serve --upstream https://api.example.com/v1 --model their-model``.
"""

from __future__ import annotations

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

URL = os.environ.get("ELISION_URL", "http://127.0.0.1:8000")
MODEL = os.environ.get("ELISION_MODEL", "their-model")
QUESTION = "When is high water at Roscoff?"


class Tide(BaseModel):
    """What an answer holds."""

    harbour: str
    metres: float


def tide(harbour: str) -> str:
    """Say when the tide is high in a harbour."""
    return f"High water at {harbour} is at 14:20."


async def main() -> None:
    key = os.environ.get("ELISION_KEY", "none")
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=key))

    found = await Agent(model, instructions="Look it up.", tools=[tide]).run(QUESTION)
    print("answer:  ", found.output)

    typed = await Agent(model, output_type=Tide).run(QUESTION)
    print("typed:   ", typed.output)

    print("streamed:", end=" ")
    async with Agent(model).run_stream(QUESTION) as reply:
        async for piece in reply.stream_text(delta=True):
            print(piece, end="")
    print()


if __name__ == "__main__":
    asyncio.run(main())
