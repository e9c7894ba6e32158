"""The body of ``POST /v1/responses``, read strictly: what is ours of it, and the chat it asks for.

Whatever a chat has a word for becomes that; what is not known is carried along, as in a chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from elision.middleware.fields import TYPE, Fields, check_text, reject, unsupported
from elision.middleware.gateway.responses.items import Placed, Reference, read_input
from elision.middleware.gateway.responses.tools import read_choice, read_tools
from elision.middleware.wire import N_ALTERNATIVES

_INCLUDABLE: Final = (
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs", "reasoning.encrypted_content",
    "message.output_text.logprobs",
)  # fmt: skip
_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES: Final = ("auto", "concise", "detailed")
_VERBOSITIES: Final = ("low", "medium", "high")
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_NOT_SERVED: Final[Mapping[str, str]] = {
    "background": "work in the background is",
    "background_options": "work in the background is",
    "conversation": "conversations kept elsewhere are",
    "context_management": "conversations that shorten themselves are",
    "prompt": "prompts by reference are",
}
_OF_A_CHAT: Final = ("messages", "max_tokens", "max_completion_tokens", "response_format")
"""Fields that a response has another word for."""
_CARRIED: Final = ("user", "safety_identifier", "prompt_cache_key")
_CHOSEN: Final[Mapping[str, tuple[str, ...]]] = {
    "service_tier": _TIERS, "prompt_cache_retention": ("in_memory", "24h"),
}  # fmt: skip
"""Fields that are carried, and what they may be."""
_LONGEST: Final = 512
_MOST_TOKENS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a response.

    Attributes:
        items: The input, in order.
        chat: Fields of the chat body, messages left out.
        told: Fields that the response repeats.
        instructions: What stands before everything else; None: nothing.
        previous: The response that this one goes on from; None: none.
        store: Whether it is to be kept.
    """

    items: tuple[Placed | Reference, ...] = field(repr=False)
    chat: Mapping[str, Any] = field(repr=False)
    told: Mapping[str, Any] = field(repr=False)
    instructions: str | None = field(default=None, repr=False)
    previous: str | None = None
    store: bool = True


def read_asked(body: object) -> Asked:
    """Read *body*.

    Raises:
        RequestError: If a field is malformed or asks for what is not served; ``param`` names it.
    """
    fields = Fields(body)
    _check_served(fields)
    model = fields.need("model")
    fields.word("model", 256)
    fields.integer("n", 1, 1)  # a response is one
    items = read_input(fields.need("input"))
    instructions = fields.take("instructions")
    if instructions is not None:
        check_text(instructions, "instructions")
    previous = fields.word("previous_response_id", 256)
    store = fields.flag("store", absent=True)
    chat, told = _common(fields)
    told |= {"instructions": instructions, "previous_response_id": previous}
    return Asked(
        items=items,
        chat=fields.rest() | chat | {"model": model},
        told=told,
        instructions=instructions,
        previous=previous,
        store=store,
    )


def _check_served(fields: Fields) -> None:
    for key, what in _NOT_SERVED.items():
        if fields.take(key) not in (None, False, [], {}):
            raise unsupported(key, what)
    for key in _OF_A_CHAT:
        if fields.take(key) is not None:
            raise reject(key, "is a chat's; a response has other fields", "unknown_parameter")


def _common(fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that the chat gets, and those that the response repeats."""
    chat: dict[str, Any] = {}
    told: dict[str, Any] = {}
    _limits(fields, chat, told)
    _tools(fields, chat, told)
    _text(fields.take("text"), chat, told)
    _reasoning(fields.take("reasoning"), chat, told)
    _logprobs(fields, chat, told)
    for key in _CARRIED:
        value = fields.word(key, _LONGEST)
        told[key] = value
        chat |= {} if value is None else {key: value}
    for key, known in _CHOSEN.items():
        told[key] = chosen = _one_of(fields, key, known)
        chat |= {} if chosen is None else {key: chosen}
    told["metadata"] = _metadata(fields.take("metadata"))
    options = fields.take("stream_options")
    if options is not None:
        Fields(options, "stream_options").flag("include_obfuscation")
    return chat, told


def _limits(fields: Fields, chat: dict[str, Any], told: dict[str, Any]) -> None:
    told["truncation"] = _one_of(fields, "truncation", ("auto", "disabled")) or "disabled"
    told["max_tool_calls"] = fields.integer("max_tool_calls", 1, _MOST_TOKENS)
    told["max_output_tokens"] = limit = fields.integer("max_output_tokens", 1, _MOST_TOKENS)
    if limit is not None:
        chat["max_completion_tokens"] = limit
    for key, highest in (("temperature", 2), ("top_p", 1)):
        told[key] = value = fields.number(key, 0, highest, above=key == "top_p")
        chat |= {} if value is None else {key: value}


def _tools(fields: Fields, chat: dict[str, Any], told: dict[str, Any]) -> None:
    given, choice = fields.take("tools"), fields.take("tool_choice")
    told["tools"] = given = [] if given is None else given
    told["tool_choice"] = choice = "auto" if choice is None else choice
    given_parallel = fields.take("parallel_tool_calls") is not None
    told["parallel_tool_calls"] = parallel = fields.flag("parallel_tool_calls", absent=True)
    tools = read_tools(given)
    tools, chosen = read_choice(choice, tools)
    if tools:
        chat["tools"] = tools
    if tools and choice != "auto":
        chat["tool_choice"] = chosen
    if tools and given_parallel:
        chat["parallel_tool_calls"] = parallel


def _text(value: object, chat: dict[str, Any], told: dict[str, Any]) -> None:
    fields = Fields({} if value is None else value, "text")
    verbosity = _one_of(fields, "verbosity", _VERBOSITIES)
    if verbosity is not None:
        chat["verbosity"] = verbosity
    format_ = fields.take("format")
    told["text"] = {"format": format_ or {"type": "text"}, "verbosity": verbosity or "medium"}
    if format_ is not None and (wanted := _format(Fields(format_, "text.format"))):
        chat["response_format"] = wanted


def _format(fields: Fields) -> dict[str, Any]:
    match fields.need("type"):
        case "text":
            return {}
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            named: dict[str, Any] = {"name": _needed(fields, "name", 64)}
            schema = fields.need("schema")
            if not isinstance(schema, Mapping):
                raise reject("text.format.schema", "must be a JSON schema, an object", TYPE)
            named["schema"] = schema
            if fields.take("strict") is not None:
                named["strict"] = fields.flag("strict")
            described = fields.take("description")
            if described is not None:
                check_text(described, "text.format.description")
                named["description"] = described
            return {"type": "json_schema", "json_schema": named}
    raise reject("text.format.type", "must be 'text', 'json_object' or 'json_schema'")


def _reasoning(value: object, chat: dict[str, Any], told: dict[str, Any]) -> None:
    fields = Fields({} if value is None else value, "reasoning")
    effort = _one_of(fields, "effort", _EFFORTS)
    summary = _one_of(fields, "summary", _SUMMARIES)
    summary = _one_of(fields, "generate_summary", _SUMMARIES) or summary
    if effort is not None:
        chat["reasoning_effort"] = effort
    told["reasoning"] = {"effort": effort, "summary": summary}


def _logprobs(fields: Fields, chat: dict[str, Any], told: dict[str, Any]) -> None:
    include = fields.take("include")
    include = [] if include is None else include
    if not isinstance(include, list):
        raise reject("include", "must be an array of strings", TYPE)
    for n, one in enumerate(include):
        if one not in _INCLUDABLE:
            raise reject(f"include[{n}]", f"must be one of {', '.join(_INCLUDABLE)}")
    told["top_logprobs"] = n_top = fields.integer("top_logprobs", 0, N_ALTERNATIVES)
    if n_top or "message.output_text.logprobs" in include:
        chat |= {"logprobs": True, "top_logprobs": n_top or 0}


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise reject("metadata", "must be an object of strings", TYPE)
    if len(value) > 16:
        raise reject("metadata", "must hold at most 16 pairs")
    for key, text in value.items():
        check_text(text, "metadata")
        if len(key) > 64 or len(text) > _LONGEST:
            raise reject("metadata", "must have keys of 64 and values of 512 characters at most")
    return dict(value)


def _one_of(fields: Fields, key: str, known: tuple[str, ...]) -> str | None:
    value = fields.take(key)
    if value is not None and value not in known:
        raise reject(fields.param(key), f"must be one of {', '.join(known)}")
    return None if value is None else str(value)


def _needed(fields: Fields, key: str, longest: int) -> str:
    fields.need(key)
    return str(fields.word(key, longest))
