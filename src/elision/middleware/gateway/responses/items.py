"""The items of a response's ``input``, checked and written out in full.

Whatever short form the caller chose, what is kept and listed has an id, a type and a status. The id
is always a fresh one: an id that a caller writes could be another's, or say anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from elision.middleware.fields import TYPE, Fields, check_text, reject, unsupported

Item: TypeAlias = dict[str, Any]

N_ITEMS: Final = 10_000
_ROLES: Final = ("user", "assistant", "system", "developer")
_DETAILS: Final = ("auto", "low", "high", "original")
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class Placed:
    """An item, and where in the request the caller wrote it."""

    item: Item = field(repr=False)
    at: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An item that the caller names by its id, and where he does."""

    id: str
    at: str


def new_id(prefix: str) -> str:
    """Return a fresh id."""
    return f"{prefix}_{uuid.uuid4().hex}"


def read_input(value: object) -> tuple[Placed | Reference, ...]:
    """Return what the model is to read, in order.

    Raises:
        RequestError: If an item is malformed, or of a kind that is not served; ``param`` names it.
    """
    if isinstance(value, str):
        check_text(value, "input")
        return (Placed(_said("user", [_text("input_text", value)]), "input"),)
    if not isinstance(value, list):
        raise reject("input", "must be a string or an array of items", TYPE)
    if len(value) > N_ITEMS:
        raise reject("input", f"must hold at most {N_ITEMS} items")
    return tuple(_read(Fields(one, f"input[{n}]"), f"input[{n}]") for n, one in enumerate(value))


def _read(fields: Fields, at: str) -> Placed | Reference:
    kind = fields.take("type")
    if kind is None:
        kind = "message" if fields.take("role") is not None else "item_reference"
    if kind == "item_reference":
        return Reference(_word(fields, "id"), at)
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise unsupported(f"{at}.type", "items of this type are")
    return Placed(reader(fields), at)


def _message(fields: Fields) -> Item:
    role = fields.need("role")
    if role not in _ROLES:
        raise reject(fields.param("role"), f"must be one of {', '.join(_ROLES)}")
    content, path = fields.need("content"), fields.param("content")
    plain = "output_text" if role == "assistant" else "input_text"
    if isinstance(content, str):
        check_text(content, path)
        return _said(role, [_text(plain, content)])
    return _said(role, _parts(content, path, _SPOKEN if role == "assistant" else _ASKED))


def _call(fields: Fields) -> Item:
    arguments = fields.need("arguments")
    check_text(arguments, fields.param("arguments"))
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "call_id": _word(fields, "call_id"),
        "name": _word(fields, "name"),
        "arguments": arguments,
        "status": "completed",
    }


def _result(fields: Fields) -> Item:
    output, path = fields.need("output"), fields.param("output")
    if isinstance(output, str):
        check_text(output, path)
    return {
        "id": new_id("fco"),
        "type": "function_call_output",
        "call_id": _word(fields, "call_id"),
        "output": output if isinstance(output, str) else _parts(output, path, _ASKED),
        "status": "completed",
    }


def _thought(fields: Fields) -> Item:
    """Return a replayed thought: its texts; what is encrypted in it is nothing we could read."""
    texts: dict[str, list[Item]] = {}
    for key, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        value = fields.take(key)
        is_empty = value is None or value == []
        texts[key] = [] if is_empty else _parts(value, fields.param(key), {kind: _text_part})
    return {"id": new_id("rs"), "type": "reasoning", "status": "completed", **texts}


def _parts(value: object, path: str, readers: Mapping[str, Callable[[Fields], Item]]) -> list[Item]:
    if not isinstance(value, list):
        raise reject(path, "must be a string or an array of parts", TYPE)
    if not value:
        raise reject(path, "must hold at least one part", "empty_array")
    return [_part(Fields(one, f"{path}[{n}]"), readers) for n, one in enumerate(value)]


def _part(fields: Fields, readers: Mapping[str, Callable[[Fields], Item]]) -> Item:
    kind = fields.need("type")
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None:
        known = ", ".join(readers)
        raise reject(fields.param("type"), f"must be one of {known}, here", "invalid_value")
    return reader(fields)


def _text_part(fields: Fields) -> Item:
    text = fields.need("text")
    check_text(text, fields.param("text"))
    return _text(str(fields.take("type")), text)


def _refusal_part(fields: Fields) -> Item:
    refusal = fields.need("refusal")
    check_text(refusal, fields.param("refusal"))
    return {"type": "refusal", "refusal": refusal}


def _image_part(fields: Fields) -> Item:
    if fields.take("file_id") is not None:
        raise unsupported(fields.param("file_id"), "files that were uploaded are")
    url, detail = fields.need("image_url"), fields.take("detail")
    check_text(url, fields.param("image_url"))
    detail = "auto" if detail is None else detail
    if detail not in _DETAILS:
        raise reject(fields.param("detail"), f"must be one of {', '.join(_DETAILS)}")
    return {"type": "input_image", "image_url": url, "detail": detail}


def _file_part(fields: Fields) -> Item:
    if fields.take("file_url") is not None:
        raise unsupported(fields.param("file_url"), "files by their address are")
    found = {"type": "input_file"}
    for key in ("file_data", "file_id", "filename"):
        value = fields.take(key)
        if value is not None:
            check_text(value, fields.param(key))
            found[key] = value
    return found


def _said(role: str, parts: list[Item]) -> Item:
    found = {"id": new_id("msg"), "type": "message", "role": role, "content": parts}
    return found | {"status": "completed"}


def _text(kind: str, text: str) -> Item:
    found: Item = {"type": kind, "text": text}
    return found | {"annotations": []} if kind == "output_text" else found


def _word(fields: Fields, key: str) -> str:
    fields.need(key)
    return str(fields.word(key, _LONGEST_NAME))


_READERS: Final[Mapping[object, Callable[[Fields], Item]]] = MappingProxyType(
    {
        "message": _message,
        "function_call": _call,
        "function_call_output": _result,
        "reasoning": _thought,
    }
)
_ASKED: Final = MappingProxyType(
    {"input_text": _text_part, "input_image": _image_part, "input_file": _file_part}
)
_SPOKEN: Final = MappingProxyType(
    {"output_text": _text_part, "refusal": _refusal_part, "input_text": _text_part}
)
