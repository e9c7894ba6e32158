"""LangChain's messages in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
)

from elision.errors import RequestError

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
)
_TEXT_ROLES = frozenset({"system", "developer", "user", "assistant"})


def to_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return LangChain's *messages* in OpenAI's form, content as plain text.

    Raises:
        RequestError: If a message is a tool's, calls one, or holds anything but text.
    """
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: BaseMessage, where: str) -> dict[str, Any]:
    role = _role(message)
    if role not in _TEXT_ROLES:
        raise RequestError(
            f"{where} is a {type(message).__name__}; only system, user and assistant text is taken",
            param=where,
        )
    if _calls_tools(message):
        raise RequestError(f"{where} calls tools; only text is guarded here", param=where)
    named = {"name": message.name} if message.name else {}
    return {"role": role, "content": _text(message.content, f"{where}.content"), **named}


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    return next((role for kind, role in _ROLES if isinstance(message, kind)), "")


def _calls_tools(message: BaseMessage) -> bool:
    if not isinstance(message, AIMessage):
        return False
    raw = (message.additional_kwargs.get(name) for name in ("tool_calls", "function_call"))
    return bool(message.tool_calls or message.invalid_tool_calls or any(raw))


def _text(content: str | Sequence[str | Mapping[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _part(part: str | Mapping[str, Any], where: str) -> str:
    if isinstance(part, str):
        return part
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError(f"{where} is not a text part; only text is guarded here", param=where)
    return str(part["text"])
