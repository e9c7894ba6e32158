"""pydantic-ai: output types (required tools), tools, streams; over Responses or chat completions.

ask_pydantic_ai.py responses|chat_completions"""

from __future__ import annotations

import sys
from typing import Any

from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, capture_run_messages
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

KIND = {"chat_completions": OpenAIChatModel, "responses": OpenAIResponsesModel}[sys.argv[1]]
PROVIDER = OpenAIProvider(base_url=BASE, api_key=KEY)


class Tide(BaseModel):
    harbour: str
    metres: float


def agent(**more: Any) -> Agent[Any, Any]:
    return Agent(KIND(MODEL, provider=PROVIDER), instructions="You know the harbour.", **more)


def with_tool(called: list[str], **more: Any) -> Agent:
    asking = agent(**more)

    @asking.tool_plain
    def tide(harbour: str) -> str:
        """Say when the tide is high in a harbour."""
        called.append(harbour)
        return high_water(harbour)

    return asking


def spent(usage: Any) -> list[int]:
    return [usage.input_tokens, usage.output_tokens]


async def chat() -> Any:
    settings = {"max_tokens": 50, "seed": 7, "temperature": 0.0}
    done = await agent(system_prompt="Be brief.").run(WHEN, model_settings=settings)
    return {"text": done.output, "usage": spent(done.usage)}


async def streamed(question: str = WHEN) -> Any:
    async with agent().run_stream(question) as reply:
        pieces = [piece async for piece in reply.stream_text(delta=True, debounce_by=None)]
        return {"text": "".join(pieces), "pieces": pieces, "usage": spent(reply.usage)}


async def tools(question: str = WHEN, **more: Any) -> Any:
    called: list[str] = []
    with capture_run_messages() as messages:
        try:
            done = await with_tool(called, retries=0, **more).run(question)
        except AgentRunError as exc:
            return {"called": called, "failure": failure(exc), "messages": str(messages)}
    text = done.output.model_dump() if isinstance(done.output, Tide) else done.output
    return {"called": called, "text": text}


async def streamed_tools(question: str = WHEN) -> Any:
    called: list[str] = []
    try:
        async with with_tool(called, retries=0).run_stream(question) as reply:
            pieces = [piece async for piece in reply.stream_text(delta=True, debounce_by=None)]
    except AgentRunError as exc:
        return {"called": called, "failure": failure(exc)}
    return {"called": called, "text": "".join(pieces)}


async def structured(question: str = WHEN) -> Any:
    return (await agent(output_type=Tide).run(question)).output.model_dump()


async def native(question: str = WHEN) -> Any:
    return (await agent(output_type=NativeOutput(Tide)).run(question)).output.model_dump()


async def streamed_structured() -> Any:
    async with agent(output_type=Tide).run_stream(WHEN) as reply:
        return [one.model_dump() async for one in reply.stream_output(debounce_by=None)][-1]


async def refused() -> Any:
    try:
        await agent().run(WHEN, model_settings={"temperature": 9})
    except AgentRunError as exc:
        return failure(exc)


async def retried() -> Any:
    return {"text": (await agent().run(STORM)).output}


async def guarded() -> Any:
    found = []
    for question in (WHERE, WHO):
        for scenario in (streamed, tools, streamed_tools, structured, native):
            try:
                found.append(await scenario(question))
            except AgentRunError as exc:
                found.append(failure(exc))
    return found


async def tools_then_structured() -> Any:
    return await tools(output_type=Tide)


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools,
    tools_then_structured=tools_then_structured, structured=structured, native=native,
    streamed_structured=streamed_structured, refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
