"""Items as the messages of a chat, and the way back from a message to where the caller wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from elision.errors import ElisionError

if TYPE_CHECKING:
    from elision.middleware.gateway.responses.items import Item, Placed

_MESSAGE: Final = re.compile(r"messages\[(\d+)\](.*)")
_CALL: Final = re.compile(r"\.tool_calls\[(\d+)\](.*)")
_OF_CALLS: Final = {
    ".id": ".call_id", ".function.name": ".name", ".function.arguments": ".arguments",
}  # fmt: skip
_OTHERS: Final = (
    (re.compile(r"messages$"), "input"),
    (re.compile(r"max_(completion_)?tokens$"), "max_output_tokens"),
    (re.compile(r"response_format(\.json_schema)?"), "text.format"),
    (re.compile(r"(tools\[\d+\]|tool_choice)\.function"), r"\1"),
    (re.compile(r"reasoning_effort$"), "reasoning.effort"),
    (re.compile(r"verbosity$"), "text.verbosity"),
    (re.compile(r"logprobs$"), "include"),
)
"""Names of a chat's fields, and what the caller of a response calls them."""


@dataclass(slots=True)
class _Origin:
    """Where a message was written: the whole, its content, each of its calls."""

    at: str
    content: str
    calls: list[str] = field(default_factory=list)


class Messages:
    """The messages of a chat, made of items one by one. Lives as long as its request.

    Calls of tools in a row are one message of the assistant, and belong to what he said just
    before them. Thoughts of earlier turns are left out: a chat has no place for them.

    Attributes:
        made: The messages.
    """

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self._origins: list[_Origin] = []

    def instruct(self, instructions: str) -> None:
        """Put *instructions* in front of what follows."""
        self._add({"role": "system", "content": instructions}, "instructions", "instructions")

    def extend(self, placed: Sequence[Placed]) -> None:
        """Add items in order."""
        for one in placed:
            self._take(one.item, one.at)

    def rename_(self, exc: ElisionError) -> None:
        """Have *exc* name its field as the caller of a response wrote it."""
        if exc.param is None:
            return
        old, exc.param = exc.param, self.name(exc.param)
        exc.args = tuple(str(arg).replace(repr(old), repr(exc.param)) for arg in exc.args)

    def name(self, param: str) -> str:
        """Return what the caller calls the field *param* of the chat."""
        if found := _MESSAGE.fullmatch(param):
            return self._place(int(found[1]), found[2])
        for pattern, name in _OTHERS:
            param = pattern.sub(name, param) if pattern.match(param) else param
        return param

    def _place(self, index: int, rest: str) -> str:
        if index >= len(self._origins):
            return "input"
        origin = self._origins[index]
        if call := _CALL.fullmatch(rest):
            return origin.calls[int(call[1])] + _OF_CALLS.get(call[2], call[2])
        if rest == ".tool_calls":
            return origin.calls[0]
        if rest.startswith(".content"):
            return origin.content + rest.removeprefix(".content")
        return origin.at + rest if origin.at.startswith("input[") else origin.at

    def _take(self, item: Item, at: str) -> None:
        match item["type"]:
            case "message":
                self._say(item, at)
            case "function_call":
                self._call(item, at)
            case "function_call_output":
                content = _content(item["output"])
                message = {"role": "tool", "tool_call_id": item["call_id"], "content": content}
                self._add(message, at, _within(at, "output"))

    def _say(self, item: Item, at: str) -> None:
        role, parts = item["role"], item["content"]
        if role != "assistant":
            # One text goes on as such: not every template takes parts.
            is_text = len(parts) == 1 and "text" in parts[0]
            content = parts[0]["text"] if is_text else _content(parts)
            self._add({"role": role, "content": content}, at, _within(at, "content"))
            return
        text = "".join(part["text"] for part in parts if "text" in part)
        refusal = "".join(part["refusal"] for part in parts if "refusal" in part)
        message: dict[str, Any] = {"role": role, "content": text or (None if refusal else "")}
        self._add(message | ({"refusal": refusal} if refusal else {}), at, _within(at, "content"))

    def _call(self, item: Item, at: str) -> None:
        if not self.made or self.made[-1]["role"] != "assistant":
            self._add({"role": "assistant", "content": None}, at, at)
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        self.made[-1].setdefault("tool_calls", []).append(call)
        self._origins[-1].calls.append(at)

    def _add(self, message: dict[str, Any], at: str, content: str) -> None:
        self.made.append(message)
        self._origins.append(_Origin(at, content))


def _within(at: str, key: str) -> str:
    return f"{at}.{key}" if at.startswith("input[") else at


def _content(value: str | list[Item]) -> str | list[dict[str, Any]]:
    return value if isinstance(value, str) else [_part(part) for part in value]


def _part(part: Item) -> dict[str, Any]:
    match part["type"]:
        case "input_image":
            image = {"url": part["image_url"], "detail": part["detail"]}
            return {"type": "image_url", "image_url": image}
        case "input_file":
            return {"type": "file", "file": {k: v for k, v in part.items() if k != "type"}}
    return {"type": "text", "text": part["text"]}
