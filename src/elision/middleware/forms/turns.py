"""Messages with calls and their results, as chat templates read them."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Message, Request, text_of
from elision.middleware.fields import TYPE, reject

if TYPE_CHECKING:
    from elision.middleware.forms.dialects import Dialect

DEEPEST: Final = 100
"""Levels of a call's arguments; templates write them by recursion."""

_ALPHABET: Final = string.ascii_letters + string.digits


def templated(messages: Iterable[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Return *messages* with their text as one string and their calls as templates want them.

    Arguments become objects, for templates write them as JSON; ids have the length that the
    template insists on. Keys without a value are left out: templates ask whether they are there.

    Raises:
        RequestError: If a call is malformed.
    """
    return [_turn(message, n, dialect) for n, message in enumerate(messages)]


def _turn(message: Message, n: int, dialect: Dialect) -> dict[str, Any]:
    turn = {key: value for key, value in message.items() if key not in _CALLS}
    turn["content"] = text_of(message)
    if message.get("tool_calls"):
        turn["tool_calls"] = _calls(message["tool_calls"], f"messages[{n}].tool_calls", dialect)
    if dialect.id_length and isinstance(message.get("tool_call_id"), str):
        turn["tool_call_id"] = _shortened(message["tool_call_id"], dialect.id_length)
    return turn


_CALLS: Final = frozenset({"tool_calls", "function_call"})


def _calls(calls: object, param: str, dialect: Dialect) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise reject(param, "must be an array of tool calls", TYPE)
    return [_call(call, f"{param}[{n}]", dialect) for n, call in enumerate(calls)]


def _call(call: object, param: str, dialect: Dialect) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise reject(f"{param}.function", "must be an object with name and arguments", TYPE)
    if not isinstance(function.get("name"), str):
        raise reject(f"{param}.function.name", "must be a string", TYPE)
    name, said = str(call.get("id", "")), function.get("arguments")
    arguments = _arguments(said, f"{param}.function.arguments")
    return {
        "id": _shortened(name, dialect.id_length) if dialect.id_length else name,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _arguments(said: object, param: str) -> Mapping[str, Any]:
    """Return the arguments of a call as an object; those of one without any are empty."""
    if isinstance(said, Mapping):
        return _shallow(said, param)
    if said is None or (isinstance(said, str) and not said.strip()):
        return {}
    if not isinstance(said, str):
        raise reject(param, "must be a JSON object, as a string", TYPE)
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise reject(param, "must be a JSON object, as a string")
    return _shallow(found, param)


def _shallow(arguments: Mapping[str, Any], param: str) -> Mapping[str, Any]:
    """Return *arguments*, if a template can write them."""
    row: list[Any] = [arguments]
    for _ in range(DEEPEST):
        inner = [value.values() if isinstance(value, Mapping) else value for value in row]
        row = [one for values in inner for one in values if isinstance(one, Mapping | list | tuple)]
        if not row:
            return arguments
    raise reject(param, f"must be nested at most {DEEPEST} levels deep")


def _shortened(name: str, length: int) -> str:
    """Return an id of *length* letters and digits, the same for the same *name*."""
    if len(name) == length and name.isalnum():
        return name
    number = int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=16).digest())
    return "".join(_ALPHABET[number // 62**n % 62] for n in range(length))


def tools_for(request: Request) -> list[dict[str, Any]] | None:
    """Return the tools that *request*'s template is to show; None if there are none to call."""
    from elision.middleware.forms.form import form_of

    if not form_of(request).callable:
        return None
    found: list[dict[str, Any]] = request.extra["tools"]
    return found
