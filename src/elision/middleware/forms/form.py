"""What a request says of the shape of its reply: text, JSON of a schema, or calls of tools.

An upstream is handed these fields as they came. A model that decodes here is held to what is read
from them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from elision.contract import Request
from elision.middleware.fields import TYPE, Fields, check_text, reject

Calls: TypeAlias = Literal["none", "may", "must"]

N_TOOLS: Final = 128
SCHEMA_BYTES: Final = 100_000
"""Longest schema, as JSON; a longer one would take seconds to compile."""
ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CHOICES: Final[Mapping[str, Calls]] = {"none": "none", "auto": "may", "required": "must"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may have called.

    Attributes:
        name: 1 to 64 letters, digits, dashes and underscores.
        description: What it is for, as the model reads it.
        parameters: JSON schema of its arguments, an object's.
    """

    name: str
    description: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=lambda: ANY_OBJECT, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a reply must look like.

    Attributes:
        schema: JSON schema of the text; None: any text.
        tools: What may be called.
        calls: Whether the reply may be, or must be, a call of a tool.
        only: The tool that must be called; any, if empty.
        parallel: Whether one reply may call several.
    """

    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    tools: tuple[Tool, ...] = ()
    calls: Calls = "none"
    only: str = ""
    parallel: bool = True

    @property
    def is_free(self) -> bool:
        """Whether any text will do."""
        return self.schema is None and self.calls == "none"

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that this reply may call."""
        if self.calls == "none":
            return ()
        return tuple(tool for tool in self.tools if self.only in ("", tool.name))


FREE: Final = Form()


def form_of(request: Request) -> Form:
    """Return what *request* asks its reply to look like.

    Raises:
        RequestError: If a field is malformed; ``param`` names it.
    """
    extra = request.extra
    if not (extra.get("tools") or extra.get("response_format") or extra.get("tool_choice")):
        return FREE
    fields = Fields(extra)
    tools = _tools(fields.take("tools"))
    calls, only = _choice(fields.take("tool_choice"), tools)
    return Form(
        schema=_schema(fields.take("response_format")),
        tools=tools,
        calls=calls,
        only=only,
        parallel=fields.flag("parallel_tool_calls", absent=True),
    )


def _tools(value: object) -> tuple[Tool, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise reject("tools", "must be an array of tools", TYPE)
    if len(value) > N_TOOLS:
        raise reject("tools", f"must hold at most {N_TOOLS} tools")
    tools = tuple(_tool(Fields(one, f"tools[{n}]")) for n, one in enumerate(value))
    if len({tool.name for tool in tools}) < len(tools):
        raise reject("tools", "must have names that differ")
    if sum(len(json.dumps(tool.parameters)) for tool in tools) > 2 * SCHEMA_BYTES:
        raise reject("tools", f"must have schemas of at most {2 * SCHEMA_BYTES} characters in all")
    return tools


def _tool(fields: Fields) -> Tool:
    if fields.need("type") != "function":
        raise reject(fields.param("type"), "must be 'function'; others are not served here")
    path = fields.param("function")
    function = Fields(fields.need("function"), path)
    name = function.need("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise reject(f"{path}.name", "must have 1 to 64 letters, digits, dashes and underscores")
    function.flag("strict")
    parameters = function.take("parameters")
    return Tool(
        name=name,
        description=_text(function.take("description") or "", f"{path}.description"),
        parameters=ANY_OBJECT if not parameters else checked(parameters, f"{path}.parameters"),
    )


def _text(value: object, param: str) -> str:
    check_text(value, param)
    return str(value)


def _choice(value: object, tools: tuple[Tool, ...]) -> tuple[Calls, str]:
    if value is None:
        return ("may" if tools else "none"), ""
    if isinstance(value, str) and value in _CHOICES:
        if value == "required" and not tools:
            raise reject("tool_choice", "needs 'tools'")
        return (_CHOICES[value] if tools else "none"), ""
    if isinstance(value, str):
        raise reject("tool_choice", "must be 'none', 'auto', 'required' or name a function")
    chosen = Fields(value, "tool_choice")
    if chosen.need("type") != "function":
        raise reject("tool_choice.type", "must be 'function'")
    name = Fields(chosen.need("function"), "tool_choice.function").need("name")
    if name not in {tool.name for tool in tools}:
        raise reject("tool_choice.function.name", "must be the name of one of 'tools'")
    return "must", str(name)


def _schema(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    fields = Fields(value, "response_format")
    match fields.need("type"):
        case "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            path = "response_format.json_schema"
            named = Fields(fields.need("json_schema"), path)
            named.word("name", 256)
            named.flag("strict")
            return checked(named.take("schema") or ANY_OBJECT, f"{path}.schema")
    raise reject("response_format.type", "must be 'text', 'json_object' or 'json_schema'")


def checked(schema: object, param: str) -> Mapping[str, Any]:
    """Return *schema* if it has the form of one: an object of JSON that is not too long.

    Raises:
        RequestError: Else.
    """
    if not isinstance(schema, Mapping):
        raise reject(param, "must be a JSON schema, an object", TYPE)
    try:
        n_chars = len(json.dumps(schema))
    except RecursionError:
        raise reject(param, "is nested too deeply") from None
    if n_chars > SCHEMA_BYTES:
        raise reject(param, f"must have at most {SCHEMA_BYTES} characters")
    return schema
