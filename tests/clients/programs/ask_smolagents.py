"""smolagents: a tool-calling agent and a code agent, whole and streamed, over chat completions."""

from __future__ import annotations

from typing import Any

import openai
from asking import BASE, KEY, MODEL, STORM, WHEN, WHERE, WHO, failure, high_water, tell
from smolagents import CodeAgent, LogLevel, OpenAIModel, ToolCallingAgent, tool
from smolagents.utils import AgentError

QUIET = {"verbosity_level": LogLevel.OFF}


@tool
def tide(harbour: str) -> str:
    """Say when the tide is high in a harbour.

    Args:
        harbour: Its name.
    """
    CALLED.append(harbour)
    return high_water(harbour)


CALLED: list[str] = []


def model(**more: Any) -> OpenAIModel:
    return OpenAIModel(model_id=MODEL, api_base=BASE, api_key=KEY, **more)


def message(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def chat() -> Any:
    said = model(max_tokens=50, temperature=0).generate(message(WHEN))
    usage = said.token_usage
    return {"text": said.content, "usage": [usage.input_tokens, usage.output_tokens]}


def streamed(question: str = WHEN) -> Any:
    pieces = [*model().generate_stream(message(question))]
    usage = next(piece.token_usage for piece in pieces if piece.token_usage)
    said = [piece.content for piece in pieces if piece.content]
    return {"text": "".join(said), "pieces": said,
            "usage": [usage.input_tokens, usage.output_tokens]}  # fmt: skip


def run(kind: type, question: str, **more: Any) -> Any:
    CALLED.clear()
    acting = kind(tools=[tide], model=model(), max_steps=3, **QUIET, **more)
    try:
        text = acting.run(question)
    except AgentError as exc:
        text = failure(exc)
    steps = [str(step) for step in acting.memory.get_full_steps()]
    return {"called": [*CALLED], "text": text, "steps": steps}


def tools(question: str = WHEN) -> Any:
    return run(ToolCallingAgent, question)


def streamed_tools(question: str = WHEN) -> Any:
    return run(ToolCallingAgent, question, stream_outputs=True) | {"streamed": True}


def code(question: str = WHEN) -> Any:
    return run(CodeAgent, question)


def structured(question: str = WHEN) -> Any:
    return run(CodeAgent, question, use_structured_outputs_internally=True)


def refused() -> Any:
    try:
        model(temperature=9).generate(message(WHEN))
    except openai.APIStatusError as exc:
        return failure(exc)


def retried() -> Any:
    return {"text": model().generate(message(STORM)).content}


def guarded() -> Any:
    asked = [model().generate(message(question)).content for question in (WHERE, WHO)]
    found = [
        scenario(question)
        for scenario in (streamed, tools, streamed_tools, code, structured)
        for question in (WHERE, WHO)
    ]
    return [asked, found]


tell(
    chat=chat, streamed=streamed, tools=tools, streamed_tools=streamed_tools, code=code,
    structured=structured, refused=refused, retried=retried, guarded=guarded,
)  # fmt: skip
