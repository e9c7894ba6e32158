"""Tools and the choice among them: a response's flat form as a chat's."""

from __future__ import annotations

from typing import Any

from elision.errors import RequestError
from elision.middleware.fields import TYPE, Fields, reject
from elision.middleware.forms.form import N_TOOLS

_CHOICES = ("none", "auto", "required")
_ELSEWHERE = (
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom", "file_search",
    "image_generation", "local_shell", "mcp", "namespace", "programmatic_tool_calling", "shell",
    "tool_search", "web_search", "web_search_2025_08_26", "web_search_preview",
    "web_search_preview_2025_03_11",
)  # fmt: skip
"""Tools that OpenAI's own servers run, or that only its own models know how to call."""


def read_tools(value: object) -> list[dict[str, Any]]:
    """Return the functions in *value* as a chat writes them.

    Raises:
        RequestError: If one is malformed, or is a tool that only OpenAI's own servers run.
    """
    if not isinstance(value, list):
        raise reject("tools", "must be an array of tools", TYPE)
    if len(value) > N_TOOLS:
        raise reject("tools", f"must hold at most {N_TOOLS} tools")
    return [_tool(Fields(one, f"tools[{n}]")) for n, one in enumerate(value)]


def _tool(fields: Fields) -> dict[str, Any]:
    kind = fields.need("type")
    if kind != "function":
        raise _not_run(fields.param("type"), kind)
    fields.need("name")
    name = fields.word("name", 64)
    parameters = fields.take("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise reject(fields.param("parameters"), "must be a JSON schema, an object", TYPE)
    if fields.take("strict") is not None:
        fields.flag("strict")
    described = fields.take("description")
    if described is not None and not isinstance(described, str):
        raise reject(fields.param("description"), "must be a string", TYPE)
    given = {
        "description": described, "parameters": parameters, "strict": fields.take("strict"),
    }  # fmt: skip
    said = {key: one for key, one in given.items() if one is not None}
    return {"type": "function", "function": {"name": name, **said, **fields.rest()}}


def read_choice(
    value: object, tools: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    """Return the tools that may be called, and the choice among them, as a chat writes it.

    Where only some are allowed, only these are shown: that holds on every engine.

    Raises:
        RequestError: If it is no choice, or names what is no tool of the request.
    """
    if isinstance(value, str):
        if value not in _CHOICES:
            raise reject("tool_choice", "must be 'none', 'auto', 'required' or name a function")
        if value == "required" and not tools:
            raise reject("tool_choice", "needs 'tools'")
        return tools, value
    chosen = Fields(value, "tool_choice")
    match chosen.need("type"):
        case "function":
            name = _known(chosen.need("name"), "tool_choice.name", tools)
            return tools, {"type": "function", "function": {"name": name}}
        case "allowed_tools":
            return _allowed(chosen, tools)
        case other:
            raise _not_run("tool_choice.type", other)


def _allowed(
    chosen: Fields, tools: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    mode, listed = chosen.need("mode"), chosen.need("tools")
    if mode not in ("auto", "required"):
        raise reject("tool_choice.mode", "must be 'auto' or 'required'")
    if not isinstance(listed, list) or not listed:
        raise reject("tool_choice.tools", "must be an array of tools", TYPE)
    names = set()
    for n, one in enumerate(listed):
        path = f"tool_choice.tools[{n}]"
        names.add(_known(Fields(one, path).need("name"), f"{path}.name", tools))
    return [tool for tool in tools if tool["function"]["name"] in names], str(mode)


def _known(name: object, param: str, tools: list[dict[str, Any]]) -> str:
    if name not in [tool["function"]["name"] for tool in tools]:
        raise reject(param, "must be the name of one of 'tools'")
    return str(name)


def _not_run(param: str, kind: object) -> RequestError:
    # Only a name that we know is repeated: whatever else stands there may be anything.
    named = f"{kind!r} is a tool that is" if kind in _ELSEWHERE else "a tool of this type is"
    return RequestError(
        f"{named} not run here; give the model a function instead",
        param=param,
        code="unsupported_parameter",
    )
