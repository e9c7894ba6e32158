"""What LangChain's callers say of tools, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from elision.errors import RequestError

ToolLike: TypeAlias = "dict[str, Any] | type | Callable[..., Any] | BaseTool"
ToolChoice: TypeAlias = "str | bool | Mapping[str, Any] | None"

_WORDS: Final = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


def described(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return *tools* as OpenAI describes functions; ``strict`` only where it is said."""
    return [convert_to_openai_tool(tool, strict=strict) for tool in tools]


def chosen(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> str | dict[str, Any] | None:
    """Return OpenAI's ``tool_choice``; None leaves it to the model.

    Args:
        choice: ``any``, ``required`` or true: one must be called; ``auto``, ``none``; a tool's
            name, or OpenAI's own object: that one. False and None say nothing.
        tools: What there is to choose from, in OpenAI's form.

    Raises:
        RequestError: If a tool is named that is not there.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return "required"
    if isinstance(choice, str) and choice in _WORDS:
        return _WORDS[choice]
    name = choice if isinstance(choice, str) else (choice.get("function") or {}).get("name")
    if name not in _names(tools):
        raise RequestError("tool_choice names a tool that is not bound", param="tool_choice")
    return {"type": "function", "function": {"name": name}}


def _names(tools: Sequence[Mapping[str, Any]]) -> set[str]:
    return {tool["function"]["name"] for tool in tools if "function" in tool}
