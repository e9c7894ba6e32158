"""openai-python: what its users write most."""

from __future__ import annotations

import json
from typing import Any

import openai
from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from pydantic import BaseModel


class Tide(BaseModel):
    harbour: str
    metres: float


class tide(BaseModel):  # noqa: N801 - the tool's name
    """Say when the tide is high in a harbour."""

    harbour: str


CLIENT = openai.OpenAI(base_url=BASE, api_key=KEY)
ASYNC = openai.AsyncOpenAI(base_url=BASE, api_key=KEY)
TOOLS = [openai.pydantic_function_tool(tide)]


def message(text: str) -> Any:
    parts = [{"type": "text", "text": text}]
    return [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]


def spent(usage: Any) -> list[int]:
    return [usage.prompt_tokens, usage.completion_tokens]


def chat() -> Any:
    said = CLIENT.chat.completions.create(
        model=MODEL, messages=message(WHEN), temperature=0, seed=7, max_completion_tokens=50,
        stop=["\n\n"], user="someone", metadata={"ours": "no"}, store=False,
    )  # fmt: skip
    return {"text": said.choices[0].message.content, "usage": spent(said.usage)}


async def streamed(question: str = WHEN) -> Any:
    pieces = []
    try:
        async with ASYNC.chat.completions.stream(
            model=MODEL, messages=message(question), stream_options={"include_usage": True}
        ) as stream:
            async for event in stream:
                pieces += [event.delta] if event.type == "content.delta" else []
            done = await stream.get_final_completion()
    except openai.OpenAIError as exc:
        return {"pieces": pieces, "failure": failure(exc)}
    return {"text": done.choices[0].message.content, "pieces": pieces, "usage": spent(done.usage)}


def tools(question: str = WHEN) -> Any:
    messages, called = message(question), []
    more = {"model": MODEL, "tools": TOOLS, "parallel_tool_calls": False}
    said = CLIENT.chat.completions.create(messages=messages, tool_choice="required", **more)
    answer = said.choices[0].message
    if said.choices[0].finish_reason == "content_filter":
        return {"called": called, "text": answer.to_dict()}
    messages.append(answer)
    for call in answer.tool_calls or ():
        called.append(json.loads(call.function.arguments)["harbour"])
        content = high_water(called[-1])
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    done = CLIENT.chat.completions.create(messages=messages, **more)
    return {"called": called, "text": done.choices[0].message.content}


async def streamed_tools(question: str = WHEN) -> Any:
    pieces = []
    try:
        async with ASYNC.chat.completions.stream(
            model=MODEL, messages=message(question), tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "tide"}},
        ) as stream:  # fmt: skip
            async for event in stream:
                delta = event.type == "tool_calls.function.arguments.delta"
                pieces += [event.arguments_delta] if delta else []
            done = await stream.get_final_completion()
    except openai.OpenAIError as exc:
        return {"called": [], "pieces": pieces, "failure": failure(exc)}
    calls = done.choices[0].message.tool_calls
    return {"called": [call.function.parsed_arguments.harbour for call in calls], "pieces": pieces}


def structured(question: str = WHEN) -> Any:
    try:
        said = CLIENT.chat.completions.parse(
            model=MODEL, messages=message(question), response_format=Tide
        )
    except openai.OpenAIError as exc:
        return failure(exc)
    return said.choices[0].message.parsed.model_dump()


def refused() -> Any:
    try:
        CLIENT.chat.completions.create(model=MODEL, messages=message(WHEN), temperature=9)
    except openai.APIStatusError as exc:
        return failure(exc)


def retried() -> Any:
    said = CLIENT.chat.completions.create(model=MODEL, messages=message(STORM))
    return {"text": said.choices[0].message.content}


async def guarded() -> Any:
    found = []
    for question in (WHERE, WHO):
        said = CLIENT.chat.completions.create(model=MODEL, messages=message(question))
        found += [said.to_dict(), await streamed(question), tools(question),
                  await streamed_tools(question), structured(question)]  # fmt: skip
    return found


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools,
    structured=structured, refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
