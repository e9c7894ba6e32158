"""llama-index: OpenAILike, its chat, stream, tool calls and structured output."""

from __future__ import annotations

from typing import Any

import openai
from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Tide(BaseModel):
    """A tide."""

    harbour: str
    metres: float


TOOL = FunctionTool.from_defaults(fn=high_water, name="tide")


def model(**more: Any) -> OpenAILike:
    given = {"model": MODEL, "api_base": BASE, "api_key": KEY, "context_window": 4096}
    kind = {"is_chat_model": True, "is_function_calling_model": True}
    return OpenAILike(**{**given, **kind, **more})


def message(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def spent(raw: Any) -> list[int]:
    return [raw.usage.prompt_tokens, raw.usage.completion_tokens]


def chat() -> Any:
    said = model(max_tokens=50, temperature=0.0, timeout=30.0).chat(message(WHEN))
    return {"text": said.message.content, "usage": spent(said.raw)}


async def streamed(question: str = WHEN) -> Any:
    more = {"stream_options": {"include_usage": True}}
    pieces = [one async for one in await model().astream_chat(message(question), **more)]
    return {"text": pieces[-1].message.content, "pieces": [one.delta for one in pieces],
            "usage": spent(pieces[-1].raw)}  # fmt: skip


def tools(question: str = WHEN) -> Any:
    asking, talk = model(), message(question)
    said = asking.chat_with_tools([TOOL], chat_history=talk)
    calls = asking.get_tool_calls_from_response(said, error_on_no_tool_call=False)
    if not calls:
        return {"called": [], "text": said.message.content}
    talk.append(said.message)
    for call in calls:
        more = {"tool_call_id": call.tool_id}
        answer = high_water(**call.tool_kwargs)
        talk.append(ChatMessage(role="tool", content=answer, additional_kwargs=more))
    done = asking.chat_with_tools([TOOL], chat_history=talk)
    return {"called": [call.tool_kwargs["harbour"] for call in calls],
            "text": done.message.content}  # fmt: skip


def streamed_tools(question: str = WHEN) -> Any:
    asking = model()
    pieces = [*asking.stream_chat_with_tools([TOOL], chat_history=message(question))]
    calls = asking.get_tool_calls_from_response(pieces[-1], error_on_no_tool_call=False)
    return {"called": [call.tool_kwargs for call in calls], "pieces": [str(p) for p in pieces]}


def structured(question: str = WHEN) -> Any:
    try:
        return model().as_structured_llm(Tide).chat(message(question)).raw.model_dump()
    except ValueError as exc:
        return failure(exc)


def completed() -> Any:
    """Ask as one asks a model that only continues a text."""
    asked = model(is_chat_model=False, is_function_calling_model=False, max_tokens=50)
    pieces = [one.delta for one in asked.stream_complete(WHEN)]
    return {"text": asked.complete(WHEN).text, "pieces": pieces}


def refused() -> Any:
    try:
        model().chat(message(WHEN), top_p=9)
    except openai.APIStatusError as exc:
        return failure(exc)


def retried() -> Any:
    return {"text": model().chat(message(STORM)).message.content}


async def guarded() -> Any:
    found = []
    for question in (WHERE, WHO):
        found += [model().chat(message(question)).message.content, await streamed(question),
                  tools(question), streamed_tools(question), structured(question)]  # fmt: skip
    return found


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools,
    structured=structured, completed=completed, refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
