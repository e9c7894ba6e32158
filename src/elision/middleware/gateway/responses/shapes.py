"""The shapes of responses and of the requests for them, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from elision.middleware.forms.form import N_TOOLS
from elision.middleware.gateway.completion_shapes import ELISION, optional, or_null
from elision.middleware.gateway.responses.items import N_ITEMS
from elision.middleware.gateway.shapes import Shape, list_of, named, object_of, page_of
from elision.middleware.wire import N_ALTERNATIVES

CLOSED: Final = frozenset({
    "id", "object", "created_at", "completed_at", "status", "background", "error",
    "incomplete_details", "output", "store", "parallel_tool_calls", "model",
    "previous_response_id", "truncation", "service_tier", "reasoning", "top_logprobs",
    "prompt_cache_retention",
})  # fmt: skip
"""Fields of a response that come from closed sets, or are ours, or are checked by themselves.

A number that the caller chooses is none of them: it may be one that must not be said.
"""
INSTEAD: Final[Mapping[str, Any]] = MappingProxyType(
    {"tools": [], "tool_choice": "auto", "metadata": {}, "text": {"format": {"type": "text"}}}
)
"""What stands for a field that may not be repeated; null for all others."""

_TEXT: Shape = {"type": "string"}
_YES_NO: Shape = {"type": "boolean"}
_OBJECT: Shape = {"type": "object"}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_STATUS: Shape = {"enum": ["in_progress", "completed", "incomplete", "failed"]}


def _word(longest: int) -> Shape:
    return {"type": "string", "minLength": 1, "maxLength": longest}


_LIMIT: Shape = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_PART = object_of("type", type=_TEXT, text=_TEXT)
_CONTENT: Shape = {"anyOf": [_TEXT, list_of(_PART) | {"minItems": 1}]}
_GIVEN: Shape = {
    "anyOf": [
        object_of(
            "role content",
            type={"const": "message"},
            role={"enum": ["user", "assistant", "system", "developer"]},
            content=_CONTENT,
        ),
        object_of(
            "type call_id name arguments",
            type={"const": "function_call"},
            call_id=_word(256), name=_word(256), arguments=_TEXT,
        ),
        object_of(
            "type call_id output",
            type={"const": "function_call_output"}, call_id=_word(256), output=_CONTENT,
        ),
        object_of("type", type={"const": "reasoning"}),
        object_of("type id", type={"const": "item_reference"}, id=_word(256)),
    ]
}  # fmt: skip
_TOOL = object_of(
    "type name",
    type={"const": "function"}, name={"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
    description=or_null(_TEXT), parameters=or_null(_OBJECT), strict=or_null(_YES_NO),
)  # fmt: skip
_FORMAT = object_of(
    "type", type={"enum": ["text", "json_object", "json_schema"]}, name=_TEXT, schema=_OBJECT
)

TO_ANSWER = named(
    "ResponseRequest",
    object_of(
        "model input",
        model=_word(256) | {"description": "ALIAS or ALIAS@PROFILE."},
        input={"anyOf": [_TEXT, list_of(_GIVEN) | {"minItems": 1, "maxItems": N_ITEMS}]},
        **optional(
            instructions=_TEXT,
            previous_response_id=_word(256),
            store=_YES_NO,
            stream=_YES_NO,
            include=list_of(_TEXT),
            max_output_tokens=_LIMIT,
            temperature={"type": "number", "minimum": 0, "maximum": 2},
            top_p={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            top_logprobs={"type": "integer", "minimum": 0, "maximum": N_ALTERNATIVES},
            tools=list_of(_TOOL) | {"maxItems": N_TOOLS},
            tool_choice={"anyOf": [{"enum": ["none", "auto", "required"]}, _OBJECT]},
            parallel_tool_calls=_YES_NO,
            text=object_of("", format=or_null(_FORMAT)),
            reasoning=_OBJECT,
            metadata=_OBJECT | {"additionalProperties": _TEXT, "maxProperties": 16},
            truncation={"enum": ["auto", "disabled"]},
            elision=ELISION,
        ),
    )
    | {"examples": [{"model": "smollm2-135m", "input": "What is the capital of France?"}]},
)
"""The body of ``POST /v1/responses``."""

EVENTS: Shape = {
    "type": "string",
    "description": "Server-sent events: each has its type as its name, and a sequence_number.",
}
"""What a streamed response is."""

_ITEM = object_of("id type", id=_TEXT, type=_TEXT, status=_STATUS)
_USAGE = object_of(
    "input_tokens input_tokens_details output_tokens output_tokens_details total_tokens",
    input_tokens=_COUNT, input_tokens_details=_OBJECT, output_tokens=_COUNT,
    output_tokens_details=_OBJECT, total_tokens=_COUNT,
)  # fmt: skip
RESPONSE = named(
    "Response",
    object_of(
        "id object created_at status model output tools tool_choice parallel_tool_calls",
        id=_TEXT, object={"const": "response"}, created_at=_COUNT, status=_STATUS, model=_TEXT,
        output=list_of(_ITEM), usage=or_null(_USAGE), tools=list_of(_OBJECT),
        tool_choice={"anyOf": [_TEXT, _OBJECT]}, parallel_tool_calls=_YES_NO, store=_YES_NO,
        previous_response_id=or_null(_TEXT), incomplete_details=or_null(_OBJECT),
        instructions=or_null(_TEXT), elision=_OBJECT,
    ),
)  # fmt: skip
_PAGE = page_of(_ITEM)
ITEMS = _PAGE | {
    "required": [*_PAGE["required"], "first_id", "last_id"],
    "properties": {**_PAGE["properties"], "first_id": _TEXT, "last_id": _TEXT},
}
GONE = object_of(
    "id object deleted", id=_TEXT, object={"const": "response"}, deleted={"const": True}
)
