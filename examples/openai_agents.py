"""An agent of the OpenAI Agents SDK on Elision: a tool, an answer, a stream.

Needs ``pip install openai-agents``, and a server before a model that can call tools: for example
``elision serve --upstream https://api.example.com/v1 --model their-model``.
"""

from __future__ import annotations

import asyncio
import os

import openai

from agents import (
    Agent,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)

URL = os.environ.get("ELISION_URL", "http://127.0.0.1:8000")
MODEL = os.environ.get("ELISION_MODEL", "their-model")
QUESTION = "When is high water at Roscoff?"


@function_tool
def tide(harbour: str) -> str:
    """Say when the tide is high in a harbour."""
    return f"High water at {harbour} is at 14:20."


async def main() -> None:
    # Spans would go to OpenAI with their prompts, whatever the client is.
    set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("ELISION_KEY", "none"))
    set_default_openai_client(client, use_for_tracing=False)

    pilot = Agent(name="pilot", instructions="Look it up.", tools=[tide], model=MODEL)
    done = await Runner.run(pilot, QUESTION)
    print("answer:  ", done.final_output)

    print("streamed:", end=" ")
    streamed = Runner.run_streamed(pilot, QUESTION)
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="")
    print()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
