"""LangChain's messages in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_data_block,
    is_data_content_block,
)

from elision.errors import RequestError

Content: TypeAlias = "str | Sequence[str | Mapping[str, Any]]"

_ROLES: Final[tuple[tuple[type[BaseMessage], str], ...]] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "function"),
)
_FREE_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_CALLS: Final = frozenset(
    {"tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call"}
)
"""Parts that say again what a message's calls say."""
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})
"""Parts that are not sent back: a model's thoughts are for the turn that had them."""
_WHOLE: Final = frozenset({"image_url", "input_audio", "file", "refusal"})
"""Parts of OpenAI's own."""


def to_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return LangChain's *messages* in OpenAI's form.

    Content that is text alone becomes one string. Earlier thoughts are left out. Images, sounds and
    files become OpenAI's parts; an engine that only reads text refuses them by their place.

    Raises:
        RequestError: If a message, or a part of one, has no form there.
    """
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: BaseMessage, where: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "role": _role(message, where),
        "content": _content(message.content, f"{where}.content"),
    }
    if isinstance(message, ToolMessage):
        return told | {"tool_call_id": message.tool_call_id}
    if message.name:
        told["name"] = message.name
    said = _said(message) if isinstance(message, AIMessage) else {}
    if said and not told["content"]:
        told["content"] = None
    return told | said


def _role(message: BaseMessage, where: str) -> str:
    if isinstance(message, ChatMessage) and message.role in _FREE_ROLES:
        return message.role
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise RequestError(
        f"{where} is a {type(message).__name__} of no role that a chat has", param=where
    )


def _said(message: AIMessage) -> dict[str, Any]:
    """Return what an assistant's message says beside its text."""
    told = {
        name: message.additional_kwargs[name]
        for name in ("refusal", "function_call")
        if message.additional_kwargs.get(name)
    }
    if calls := [*_calls(message)]:
        told["tool_calls"] = calls
    return told


def _calls(message: AIMessage) -> Iterator[dict[str, Any]]:
    for call in message.tool_calls:
        yield _call(call["id"], call["name"], _json(call["args"]))
    for broken in message.invalid_tool_calls:
        yield _call(broken["id"], broken["name"] or "", broken["args"] or "")
    if message.tool_calls or message.invalid_tool_calls or isinstance(message.content, str):
        return
    for part in message.content:
        if isinstance(part, Mapping) and part.get("type") == "tool_use":
            yield _call(part.get("id"), str(part.get("name", "")), _json(part.get("input") or {}))


def _call(id_: str | None, name: str, arguments: str) -> dict[str, Any]:
    known = {"id": id_} if id_ else {}
    return {**known, "type": "function", "function": {"name": name, "arguments": arguments}}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _content(content: Content, where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = [
        told for i, part in enumerate(content) if (told := _part(part, f"{where}[{i}]")) is not None
    ]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: str | Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Return a part as OpenAI writes it; None for what is told elsewhere or not at all."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type")
    if kind in _CALLS or kind in _THOUGHTS:
        return None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind in _WHOLE and kind in part:
        return dict(part)
    told = _data(dict(part))
    if told is None:
        raise RequestError(f"{where} is no part that OpenAI's form of a chat has", param=where)
    return told


def _data(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return LangChain's or Anthropic's image, sound or file in OpenAI's form, if it is one."""
    source = part.get("source")
    if part.get("type") == "image" and isinstance(source, Mapping):
        return _sourced(source)
    if part.get("type") == "file":
        beside = part.get("extras") or part.get("metadata") or {}
        part = {"filename": beside.get("filename", "file"), **part}
    try:
        return convert_to_openai_data_block(part) if is_data_content_block(part) else None
    except (KeyError, TypeError, ValueError):  # their messages quote the part
        return None


def _sourced(source: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(source.get("url"), str):
        return {"type": "image_url", "image_url": {"url": source["url"]}}
    if not all(isinstance(source.get(name), str) for name in ("media_type", "data")):
        return None
    url = f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}
