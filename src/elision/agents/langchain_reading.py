"""What is to be read of calls, messages and their parts before they go on."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.types import Overwrite

from elision.errors import GuardError

SAID: Final = ("text", "reasoning", "thinking", "refusal")
"""Keys of a content part under which there are words that may be cut out."""
_DATA: Final = frozenset(
    {"data", "base64", "file_data", "url", "image_url", "signature", "encrypted_content"}
)
"""Keys of a content part under which there may be data that is no text."""
_LEAST_DATA: Final = 256
"""Characters from which on base64 may be data; shorter ones are read."""
_DATA_URL: Final = re.compile(r"data:[\w.+/;=-]{0,100};base64,")


def spoken(name: str, args: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts to judge of a call: as JSON, by its values, its keys, and all strings.

    Read one behind the other, so that what is spread over several is found too.
    """
    written = json.dumps(args, ensure_ascii=False, default=str)
    every = " ".join([name, *strings(args, values=True, keys=True)])
    return tuple(dict.fromkeys((written, *_each_way(args), every)))


def readings(parts: Iterable[Any]) -> tuple[str, ...]:
    """Return the texts to judge of a message's parts: their words, and whatever else is in them.

    Base64 of what is no text is left out: nobody here reads images and sounds.
    """
    told = [_legible(part) for part in parts]
    every = " ".join(strings(told, values=True, keys=True))
    return tuple(dict.fromkeys(("".join(_words(told)), *_each_way(told), every)))


def _each_way(value: Any) -> Iterator[str]:
    yield " ".join(strings(value, values=True))
    yield " ".join(strings(value, keys=True))


def strings(value: Any, *, values: bool = False, keys: bool = False) -> Iterator[str]:
    """Yield the strings of *value*, however deep: its *keys*, its *values*, or both by turns."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            if keys:
                yield str(key)
            yield from strings(held, values=values, keys=keys)
    elif isinstance(value, list | tuple | set | frozenset):
        for held in value:
            yield from strings(held, values=values, keys=keys)
    elif value is not None and values:
        yield str(value)


def _words(parts: Iterable[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from (part[key] for key in SAID if isinstance(part.get(key), str))


def _legible(value: Any, key: str = "") -> Any:
    """Return *value* without data that is no text."""
    if isinstance(value, Mapping):
        return {name: _legible(held, str(name)) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(held, key) for held in value]
    if isinstance(value, bytes):
        return ""
    return "" if key in _DATA and isinstance(value, str) and _is_data(value) else value


def _is_data(text: str) -> bool:
    said = _DATA_URL.match(text)
    body = text[said.end() :] if said else text
    if len(body) < _LEAST_DATA:
        return False
    try:
        base64.b64decode(body, validate=True).decode()
    except binascii.Error:
        return False
    except UnicodeDecodeError:
        return True
    return False  # a text: it is read


def messages_of(value: Any) -> list[BaseMessage]:
    """Return the messages that LangGraph would make of an update of the key ``messages``.

    Raises:
        GuardError: If they cannot be read.
    """
    given: Any = [value] if isinstance(value, Mapping | str) else value
    try:
        return convert_to_messages(given)
    # It names what it could not read; the cause is dropped.
    except (TypeError, ValueError, NotImplementedError, KeyError, AttributeError):
        raise GuardError("a tool returned a command whose messages cannot be read") from None


def overwrites(value: Any) -> tuple[bool, Any]:
    """Return whether *value* is to replace what is there, by either way to say so, and by what."""
    if isinstance(value, Overwrite):
        return True, value.value
    if isinstance(value, Mapping):
        if value.get("type") == "__overwrite__" and "value" in value:
            return True, value["value"]
        if value.keys() == {"__overwrite__"}:
            return True, value["__overwrite__"]
    return False, value
