"""What of a request only engines take that hand it on: tools, images, formats.

An engine that decodes here writes text. What asks it for something else is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from elision.contract import Capability, Engine, Request
from elision.errors import RequestError
from elision.middleware.fields import unsupported

_HARMLESS: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "tools": ([],),
        "functions": ([],),
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
    }
)
_ASKS_FOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tools": "tool calls are",
        "functions": "function calls are",
        "tool_choice": "tool calls are",
        "function_call": "function calls are",
        "response_format": 'a response_format other than {"type": "text"} is',
        "modalities": "output other than text is",
        "audio": "audio output is",
        "web_search_options": "web search is",
    }
)
_TOOL_ROLES: Final = ("tool", "function")
_CALLS: Final = ("tool_calls", "function_call")


def check_asks(request: Request, engine: Engine) -> None:
    """Raise if *request* asks *engine* for more than it writes, or has it read more than text.

    Raises:
        RequestError: Naming the field; unless the engine hands such things on.
    """
    if Capability.PASSES in engine.capabilities:
        return
    for fault in _faults(request):
        raise fault


def _faults(request: Request) -> Iterator[RequestError]:
    for key, harmless in _HARMLESS.items():
        value = request.extra.get(key)
        if value is not None and value not in harmless:
            yield unsupported(key, _ASKS_FOR[key])
    for index, message in enumerate(request.messages):
        yield from _of_message(message, f"messages[{index}]")


def _of_message(message: Mapping[str, Any], where: str) -> Iterator[RequestError]:
    if message.get("role") in _TOOL_ROLES:
        yield unsupported(f"{where}.role", "tool messages are")
    for key in _CALLS:
        if message.get(key) not in (None, []):
            yield unsupported(f"{where}.{key}", "tool calls are")
    content = message.get("content")
    if content is None:
        yield unsupported(f"{where}.content", "messages without text are")
    if isinstance(content, list | tuple):
        for n, part in enumerate(content):
            if part.get("type") != "text":
                yield unsupported(f"{where}.content[{n}].type", "parts other than text are")
