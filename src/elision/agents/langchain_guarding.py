"""What an agent's tools are given, and what they return, held against the forget register."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any, Final, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel

from elision.agents.langchain_judging import GuardClient as GuardClient
from elision.agents.langchain_judging import TextGuard as TextGuard
from elision.agents.langchain_reading import (
    SAID,
    messages_of,
    overwrites,
    readings,
    strings,
)
from elision.agents.langchain_reading import spoken as spoken
from elision.errors import GuardError

CALL_REFUSED: Final = "This call was not made: its arguments hold something that must not be said."
RESULT_REFUSED: Final = "The result of this call is withheld."
REPLY_REFUSED: Final = "I cannot help with that."
_CALLS: Final = ("tool_call", "tool_call_chunk", "tool_use", "function_call", "invalid_tool_call")
"""Kinds of content parts that call a tool."""
M = TypeVar("M", bound=BaseMessage)


class MessageGuard:
    """Judges what passes between an agent's model and its tools.

    Args:
        client: Whose register holds.
    """

    def __init__(self, client: GuardClient) -> None:
        self.texts = TextGuard(client)

    def may_call(self, name: str, args: Mapping[str, Any]) -> bool:
        """Return whether a tool may be called so. Arguments are never redacted: only refused."""
        return self.texts.may_pass(spoken(name, args))

    def may_answer(self, answer: Any) -> bool:
        """Return whether an agent may answer with an object: read as the arguments of a call."""
        if isinstance(answer, BaseModel):
            answer = answer.model_dump(mode="json")
        elif is_dataclass(answer) and not isinstance(answer, type):
            answer = asdict(answer)
        return answer is None or self.may_call("", {"": answer})

    def result(self, message: ToolMessage) -> ToolMessage:
        """Return a tool's answer as the model may read it; the same object if all of it may be.

        What the answer's parts spell together counts too. Data that is no text is not read, nor is
        the artifact, which the model does not see.
        """
        told = self.read(message)
        return told if told.content != RESULT_REFUSED else told.model_copy(update=_FAILED)

    def read(self, message: M) -> M:
        """Return a message of anybody's as the model may read it; see `result`."""
        content = self._content(message.content)
        if not self._may_stand_beside(message):
            content = None
        if content is message.content:
            return message
        if content is None:
            withheld: dict[str, Any] = {
                "content": RESULT_REFUSED,
                "additional_kwargs": {},
                "name": None,
            }
            return message.model_copy(update=withheld)
        return message.model_copy(update={"content": content})

    def _may_stand_beside(self, message: BaseMessage) -> bool:
        beside = strings([message.name, message.additional_kwargs], values=True, keys=True)
        return self.texts.may_pass([" ".join(beside)])

    def returned(self, result: Any) -> Any:
        """Return what a tool returned as the agent may take it: a message, a command, or several.

        Raises:
            GuardError: If a command brings what cannot be read.
        """
        if isinstance(result, list):
            return [self.returned(one) for one in result]
        if isinstance(result, ToolMessage):
            return self.result(result)
        if not isinstance(result, Command):
            return result
        return replace(result, update=self._updated(result.update), goto=self._sent(result.goto))

    def _updated(self, update: Any) -> Any:
        if update is None:
            return None
        if isinstance(update, Mapping):
            return {key: self._held(key, value) for key, value in update.items()}
        if isinstance(update, list | tuple) and all(map(_is_pair, update)):
            return [(key, self._held(key, value)) for key, value in update]
        raise GuardError("a tool returned a command whose update cannot be read")

    def _sent(self, goto: Any) -> Any:
        """Return where a command leads, with what it sends there checked."""
        if isinstance(goto, list | tuple):
            return type(goto)(self._sent(one) for one in goto)
        if not isinstance(goto, Send) or goto.arg is None:
            return goto
        arg = goto.arg
        told = self._updated(arg) if isinstance(arg, Mapping) else self._held("", arg)
        return Send(goto.node, told, timeout=goto.timeout)

    def _held(self, key: str, value: Any) -> Any:
        """Return a value of an update with its messages checked; what else it brings is not."""
        overwrite, held = overwrites(value)
        if overwrite:
            return Overwrite(self._held(key, held))
        if isinstance(value, BaseMessage):
            return self._message(value)
        if key == "messages" and value is not None:
            return [self._message(one) for one in messages_of(value)]
        if isinstance(value, list | tuple):
            return [self._held("", one) for one in value]
        return value

    def _message(self, message: BaseMessage) -> BaseMessage:
        if isinstance(message, ToolMessage):
            return self.result(message)
        if isinstance(message, AIMessage):
            return self.reply(message)
        return message if isinstance(message, RemoveMessage) else self.read(message)

    def reply(self, message: AIMessage) -> AIMessage:
        """Return a model's message as it may leave; the same object if all of it may.

        A refused one loses its calls, and so does one that its model's filter ended: nobody knows
        where it was cut off. Of a redacted one only the text is changed, and its log-probabilities
        go, which spell it.
        """
        message = _without_calls(message) if _was_filtered(message) else message
        content = self._content(message.content)
        if content is None or not self._may_call_all(message):
            return refused(message)
        if not self._may_stand_beside(message):
            return refused(message)
        if content is message.content:
            return message
        told = {k: v for k, v in message.response_metadata.items() if k != "logprobs"}
        return message.model_copy(update={"content": content, "response_metadata": told})

    def _may_call_all(self, message: AIMessage) -> bool:
        broken = [f"{call['name']} {call['args']}" for call in message.invalid_tool_calls]
        calls = ((call["name"], call["args"]) for call in message.tool_calls)
        return self.texts.may_pass(broken) and all(self.may_call(*call) for call in calls)

    def _content(self, content: Any) -> Any:
        """Return *content* as it may be read, itself if all of it may, None if nothing may."""
        if isinstance(content, str):
            ruling = self.texts.judge(content)
            return {"allow": content, "redact": ruling.text, "refuse": None}[ruling.verdict]
        verdicts = self._verdicts(content)
        if verdicts <= {"allow"}:
            return content
        parts = [self._part(part) for part in content]
        if "refuse" in verdicts or self._verdicts(parts) != {"allow"}:
            return None  # it lies across parts, or where nothing can be cut out
        return parts

    def _verdicts(self, parts: Sequence[Any]) -> set[str]:
        return {self.texts.judge(text).verdict for text in readings(parts)}

    def _part(self, part: Any) -> Any:
        if isinstance(part, str):
            return self.texts.judge(part).text
        told = {
            key: self.texts.judge(part[key]).text for key in SAID if isinstance(part.get(key), str)
        }
        return {**part, **told}


_FAILED: Final = {"status": "error"}


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _was_filtered(message: AIMessage) -> bool:
    told = message.response_metadata
    return "content_filter" in _ends(told) or "refusal" in _ends(told)


def _ends(told: Mapping[str, Any]) -> Iterable[Any]:
    return [told.get(name) for name in ("finish_reason", "stop_reason")]


def _without_calls(message: AIMessage) -> AIMessage:
    """Return *message* without its calls, wherever they stand; itself if there are none."""
    beside = {k: v for k, v in message.additional_kwargs.items() if k not in _CALLED}
    content = message.content
    if isinstance(content, list):
        content = [part for part in content if not _is_call(part)]
    if (
        not message.tool_calls
        and beside == message.additional_kwargs
        and content == message.content
    ):
        return message
    update: dict[str, Any] = {"content": content, "additional_kwargs": beside, "tool_calls": []}
    if hasattr(message, "tool_call_chunks"):
        update["tool_call_chunks"] = []
    return message.model_copy(update=update | {"invalid_tool_calls": []})


_CALLED: Final = ("tool_calls", "function_call")


def _is_call(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in _CALLS


def refused(message: AIMessage) -> AIMessage:
    """Return what stands in the place of a *message* that must not leave; it keeps its id."""
    kept = {"finish_reason": "content_filter"}
    if name := message.response_metadata.get("model_name"):
        kept["model_name"] = name
    return AIMessage(
        REPLY_REFUSED,
        id=message.id,
        name=message.name,
        response_metadata=kept,
        usage_metadata=message.usage_metadata,
    )


def withheld(name: str, call_id: str | None) -> ToolMessage:
    """Return the answer to a call that is not made."""
    return ToolMessage(CALL_REFUSED, name=name, tool_call_id=call_id or "", status="error")
