"""openai-agents: agents with tools, streams and output types; over Responses or chat completions.

ask_openai_agents.py responses|chat_completions
"""

from __future__ import annotations

import sys
from typing import Any

import openai
from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from pydantic import BaseModel

import agents
from agents import Agent, ModelSettings, Runner, function_tool

agents.set_tracing_disabled(True)
agents.set_default_openai_api(sys.argv[1])
agents.set_default_openai_client(
    openai.AsyncOpenAI(base_url=BASE, api_key=KEY), use_for_tracing=False
)
SETTINGS = ModelSettings(include_usage=True)


class Tide(BaseModel):
    harbour: str
    metres: float


def agent(called: list[str] | None = None, **more: Any) -> Agent:
    asked = [] if called is None else called

    @function_tool
    def tide(harbour: str) -> str:
        """Say when the tide is high in a harbour."""
        asked.append(harbour)
        return high_water(harbour)

    tools = {} if called is None else {"tools": [tide]}
    given = {"name": "pilot", "instructions": "You know the harbour.", "model": MODEL}
    return Agent(**{**given, "model_settings": SETTINGS, **tools, **more})


async def chat() -> Any:
    settings = ModelSettings(max_tokens=50, temperature=0.0, top_p=0.9, metadata={"ours": "no"})
    done = await Runner.run(agent(model_settings=settings), WHEN)
    usage = done.context_wrapper.usage
    return {"text": done.final_output, "usage": [usage.input_tokens, usage.output_tokens]}


async def streamed(question: str = WHEN) -> Any:
    done = Runner.run_streamed(agent(), question)
    pieces = [
        event.data.delta
        async for event in done.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    usage = done.context_wrapper.usage
    return {"text": done.final_output, "pieces": pieces,
            "usage": [usage.input_tokens, usage.output_tokens]}  # fmt: skip


async def tools(question: str = WHEN) -> Any:
    called: list[str] = []
    try:
        done = await Runner.run(agent(called), question, max_turns=3)
    except agents.exceptions.AgentsException as exc:
        return {"called": called, "failure": failure(exc)}
    return {"called": called, "text": done.final_output}


async def streamed_tools(question: str = WHEN) -> Any:
    called: list[str] = []
    done = Runner.run_streamed(agent(called), question, max_turns=3)
    kinds, pieces = [], []
    try:
        async for event in done.stream_events():
            if event.type == "raw_response_event":
                kinds.append(event.data.type)
                if event.data.type == "response.function_call_arguments.delta":
                    pieces.append(event.data.delta)
    except agents.exceptions.AgentsException as exc:
        return {"called": called, "arguments": pieces, "failure": failure(exc)}
    return {"called": called, "arguments": pieces, "text": done.final_output, "kinds": kinds}


async def followed() -> Any:
    """Ask twice; over Responses the second request names the first one's answer."""
    first = await Runner.run(agent(), WHEN)
    last = first.last_response_id if sys.argv[1] == "responses" else None
    done = await Runner.run(agent(), WHEN, previous_response_id=last)
    return {"text": done.final_output}


async def structured(question: str = WHEN) -> Any:
    done = await Runner.run(agent(output_type=Tide), question)
    return done.final_output.model_dump()


async def refused() -> Any:
    try:
        await Runner.run(agent(model_settings=ModelSettings(temperature=9)), WHEN)
    except openai.APIStatusError as exc:
        return failure(exc)


async def retried() -> Any:
    return {"text": (await Runner.run(agent(), STORM)).final_output}


async def guarded() -> Any:
    found = []
    for question in (WHERE, WHO):
        try:
            found.append([
                (await Runner.run(agent(), question)).final_output,
                await streamed(question), await tools(question), await streamed_tools(question),
            ])  # fmt: skip
        except agents.exceptions.AgentsException as exc:
            found.append(failure(exc))
    return found


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools,
    followed=followed, structured=structured, refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
