"""langchain-openai: ChatOpenAI with tools, structured output and streams.

ask_langchain.py responses|chat_completions
"""

from __future__ import annotations

import sys
from typing import Any

import openai
from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

OVER_RESPONSES = sys.argv[1] == "responses"
ONLY_A_CHAT = {} if OVER_RESPONSES else {"seed": 7, "stop": ["\n\n"]}


class Tide(BaseModel):
    harbour: str
    metres: float


@tool
def tide(harbour: str) -> str:
    """Say when the tide is high in a harbour."""
    return high_water(harbour)


def model(**more: Any) -> ChatOpenAI:
    given = {"model": MODEL, "base_url": BASE, "api_key": KEY, "stream_usage": True}
    return ChatOpenAI(**given, use_responses_api=OVER_RESPONSES, **more)


def spent(message: Any) -> list[int]:
    return [message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]]


def chat() -> Any:
    said = model(max_tokens=50, temperature=0, **ONLY_A_CHAT).invoke(WHEN)
    return {"text": said.text, "usage": spent(said)}


async def streamed(question: str = WHEN) -> Any:
    pieces, whole = [], None
    async for chunk in model().astream(question):
        pieces += [chunk.text] if chunk.text else []
        whole = chunk if whole is None else whole + chunk
    return {"text": whole.text, "pieces": pieces, "usage": spent(whole)}


def tools(question: str = WHEN) -> Any:
    bound = model().bind_tools([tide])
    messages = [HumanMessage(question)]
    messages.append(bound.invoke(messages))
    calls = messages[-1].tool_calls
    if not calls:
        return {"called": [], "text": messages[-1].text}
    messages += [tide.invoke(call) for call in calls]
    return {"called": [call["args"]["harbour"] for call in calls],
            "text": bound.invoke(messages).text}  # fmt: skip


def streamed_tools(question: str = WHEN) -> Any:
    whole, pieces = None, []
    for chunk in model().bind_tools([tide], tool_choice="tide").stream(question):
        pieces += [piece["args"] for piece in chunk.tool_call_chunks]
        whole = chunk if whole is None else whole + chunk
    return {"called": [call["args"] for call in whole.tool_calls], "pieces": pieces,
            "text": whole.text}  # fmt: skip


def structured(question: str = WHEN) -> Any:
    return _structured(question, "json_schema")


def _structured(question: str, method: str) -> Any:
    try:
        found = model().with_structured_output(Tide, method=method).invoke(question)
    except (OutputParserException, openai.OpenAIError, ValueError) as exc:
        return failure(exc)
    return found.model_dump() if found else None


def called_structured(question: str = WHEN) -> Any:
    return _structured(question, "function_calling")


def refused() -> Any:
    try:
        model(temperature=9).invoke(WHEN)
    except openai.APIStatusError as exc:
        return failure(exc)


def retried() -> Any:
    return {"text": model().invoke(STORM).text}


async def guarded() -> Any:
    found = []
    for question in (WHERE, WHO):
        found += [
            model().invoke(question).text,
            await streamed(question),
            tools(question),
            streamed_tools(question),
            structured(question),
            called_structured(question),
        ]
    return found


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools,
    structured=structured, called_structured=called_structured,
    refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
