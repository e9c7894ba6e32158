"""The shapes of requests for text and of replies, as JSON Schema.

A field that is null counts as absent, as with OpenAI, so every field that may be left out may be
null. What is not named here is carried along: an upstream gets it, a local model ignores it.
"""

from __future__ import annotations

from typing import get_args

from elision.middleware.agentic.wanted import LONGEST, MOST, Lane, Learning
from elision.middleware.forms.form import N_TOOLS
from elision.middleware.gateway.shapes import Shape, closed, list_of, named, object_of
from elision.middleware.guidance import METHODS
from elision.middleware.prompts import N_PROMPTS, TOKEN_ID_MAX
from elision.middleware.wire import N_ALTERNATIVES, N_CHOICES, N_STOPS

_TEXT: Shape = {"type": "string"}
_YES_NO: Shape = {"type": "boolean"}
_NUMBER: Shape = {"type": "number"}
_OBJECT: Shape = {"type": "object"}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_NULL: Shape = {"type": "null"}


def _number(low: float, high: float) -> Shape:
    return {"type": "number", "minimum": low, "maximum": high}


def _integer(low: int, high: int = TOKEN_ID_MAX) -> Shape:
    return {"type": "integer", "minimum": low, "maximum": high}


def _word(longest: int) -> Shape:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def or_null(shape: Shape) -> Shape:
    """Return *shape*, or null."""
    if isinstance(kind := shape.get("type"), str):
        return shape | {"type": [kind, "null"]}
    return {"anyOf": [shape, _NULL]}


def optional(**fields: Shape) -> dict[str, Shape]:
    """Return *fields*, each of which may be null."""
    return {name: or_null(shape) for name, shape in fields.items()}


# --- requests ------------------------------------------------------------------------------------

_SOME_TEXT: Shape = {"type": "string", "minLength": 1}
_SOME_TOKENS: Shape = list_of(_integer(0)) | {"minItems": 1}
_SHARE: Shape = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_WORDS = list_of(_word(LONGEST)) | {"maxItems": MOST}
_METHOD: Shape = {
    "description": "Its settings; true for its defaults, null or false for none.",
    "anyOf": [_OBJECT, _YES_NO, _NULL],
}
_GUIDANCE = closed(object_of("", **dict.fromkeys(METHODS, _METHOD)))
_MEMORY = closed(
    object_of(
        "",
        **optional(
            learning={"enum": [*get_args(Learning)]},
            lane={"enum": [*get_args(Lane)]},
            namespace=_WORDS,
            tags=_WORDS,
            subjects=_WORDS,
            facts=_OBJECT | {"additionalProperties": {"type": ["string", "number", "boolean"]}},
        ),
    )
)
ELISION = named(
    "Elision",
    closed(
        object_of(
            "",
            **optional(
                deterministic=_YES_NO,
                guidance=_GUIDANCE,
                memory=_MEMORY,
                profile=_word(64),
                report=_YES_NO,
                rng={"enum": ["counter", "torch"]},
                session=_word(256),
                speculation={"enum": ["auto", "off", "force"]},
                tenant=_word(64),
                timeout_s={"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
                trace=_YES_NO,
            ),
        )
    )
    | {"description": "What is ours. Another key is an error: it could mean a weaker guard."},
)
_COMMON: dict[str, Shape] = {
    "model": _word(256) | {"description": "ALIAS or ALIAS@PROFILE."},
    **optional(
        n=_integer(1, N_CHOICES),
        temperature=_number(0, 2),
        top_p=_SHARE,
        top_k=_integer(-1),
        min_p=_number(0, 1),
        top_n_sigma=_number(0, 100),
        frequency_penalty=_number(-2, 2),
        presence_penalty=_number(-2, 2),
        repetition_penalty=_number(0.01, 100),
        logit_bias=_OBJECT
        | {
            "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
            "additionalProperties": _number(-100, 100),
        },
        stop={"anyOf": [_SOME_TEXT, list_of(_SOME_TEXT) | {"maxItems": N_STOPS}]},
        seed=_integer(-(2**63), 2**64 - 1),
        stream=_YES_NO,
        stream_options=object_of("", **optional(include_usage=_YES_NO))
        | {"description": "Only with stream."},
        elision=ELISION,
    ),
}

_PART = object_of("type", type=_TEXT, text=_TEXT)
_CONTENT: Shape = {"anyOf": [_TEXT, list_of(_PART) | {"minItems": 1}]}
_INSTEAD = ("tool_calls", "function_call", "refusal", "audio")
_MESSAGE = object_of(
    "role",
    role={"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
    name=or_null(_word(256)),
) | {
    "anyOf": [
        {"required": ["content"], "properties": {"content": _CONTENT}},
        {
            "description": "An assistant may have said something else.",
            "properties": {"role": {"const": "assistant"}, "content": _NULL},
            "anyOf": [{"required": [name]} for name in _INSTEAD],
        },
    ],
}
_TOOL = object_of(
    "type function",
    type={"const": "function"},
    function=object_of(
        "name",
        name={"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
        description=_TEXT,
        parameters=_OBJECT,
        strict=or_null(_YES_NO),
    ),
)
_NAMED_TOOL = object_of("type function", type=_TEXT, function=object_of("name", name=_TEXT))
_FORMAT = object_of(
    "type",
    type={"enum": ["text", "json_object", "json_schema"]},
    json_schema=object_of("name", name=_TEXT, schema=_OBJECT, strict=or_null(_YES_NO)),
)
_HELLO = {"role": "user", "content": "What is the capital of France?"}

CHAT = named(
    "ChatRequest",
    object_of(
        "model messages",
        **_COMMON,
        messages=list_of(_MESSAGE) | {"minItems": 1},
        **optional(
            max_tokens=_integer(1),
            max_completion_tokens=_integer(1),
            logprobs=_YES_NO,
            top_logprobs=_integer(0, N_ALTERNATIVES) | {"description": "Only with logprobs."},
            continue_final_message=_YES_NO,
            tools=list_of(_TOOL) | {"maxItems": N_TOOLS},
            tool_choice={"anyOf": [{"enum": ["none", "auto", "required"]}, _NAMED_TOOL]},
            parallel_tool_calls=_YES_NO,
            response_format=_FORMAT,
        ),
    )
    | {
        "examples": [
            {"model": "smollm2-135m", "messages": [_HELLO], "max_tokens": 16},
            {"model": "smollm2-135m@guarded", "messages": [_HELLO], "elision": {"report": True}},
        ],
    },
)
"""The body of ``POST /v1/chat/completions``."""

COMPLETION = named(
    "CompletionRequest",
    object_of(
        "model prompt",
        **_COMMON,
        prompt={
            "description": "A text, token ids, or a list of either.",
            "anyOf": [
                _SOME_TEXT,
                _SOME_TOKENS,
                list_of({"anyOf": [_SOME_TEXT, _SOME_TOKENS]})
                | {"minItems": 1, "maxItems": N_PROMPTS},
            ],
        },
        **optional(
            max_tokens=_integer(0) | {"description": "0 only with echo; 16 if it is left out."},
            echo=_YES_NO,
            logprobs=_integer(0, N_ALTERNATIVES),
            best_of=_integer(1) | {"description": "Only as n."},
            suffix={"const": "", "description": "Filling in is not served."},
        ),
    )
    | {
        "examples": [
            {"model": "smollm2-135m", "prompt": "The capital of France is", "max_tokens": 4}
        ],
    },
)
"""The body of ``POST /v1/completions``."""

# --- replies -------------------------------------------------------------------------------------

_FINISH: Shape = {"enum": ["stop", "length", "content_filter", "tool_calls", "function_call", None]}
USAGE = named(
    "Usage",
    object_of(
        "prompt_tokens completion_tokens total_tokens",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
    ),
)
_REPORT = _OBJECT | {"description": "What ran, if the request asked for a report."}
_LIKELY = {
    "token": _TEXT,
    "logprob": or_null(_NUMBER),
    "bytes": or_null(list_of(_integer(0, 255))),
}
_TOLD_TOKEN = object_of(
    "token logprob bytes top_logprobs",
    **_LIKELY,
    top_logprobs=list_of(object_of("token logprob bytes", **_LIKELY)),
)
_CALL = object_of(
    "id type function",
    id=_TEXT,
    type={"const": "function"},
    function=object_of("name arguments", name=_TEXT, arguments=_TEXT),
)
_SAID = object_of(
    "role content",
    role={"const": "assistant"},
    content=or_null(_TEXT),
    refusal=or_null(_TEXT),
    reasoning_content=or_null(_TEXT),
    tool_calls=list_of(_CALL),
)
_CHAT_CHOICE = object_of(
    "index message logprobs finish_reason",
    index=_COUNT,
    message=_SAID,
    logprobs=or_null(object_of("content", content=or_null(list_of(_TOLD_TOKEN)))),
    finish_reason=_FINISH,
)
_LISTS = object_of(
    "tokens token_logprobs top_logprobs text_offset",
    tokens=list_of(_TEXT),
    token_logprobs=list_of(or_null(_NUMBER)),
    top_logprobs=list_of(or_null(_OBJECT | {"additionalProperties": or_null(_NUMBER)})),
    text_offset=list_of(_COUNT),
)
_TEXT_CHOICE = object_of(
    "index text logprobs finish_reason",
    index=_COUNT,
    text=_TEXT,
    logprobs=or_null(_LISTS),
    finish_reason=_FINISH,
)


def _reply(kind: str, choice: Shape) -> Shape:
    return object_of(
        "id object created model choices",
        id=_TEXT, object={"const": kind}, created=_COUNT, model=_TEXT, system_fingerprint=_TEXT,
        choices=list_of(choice), usage=or_null(USAGE), elision=_REPORT,
    )  # fmt: skip


CHAT_REPLY = named("ChatReply", _reply("chat.completion", _CHAT_CHOICE))
COMPLETION_REPLY = named("CompletionReply", _reply("text_completion", _TEXT_CHOICE))
EVENTS: Shape = {
    "type": "string",
    "description": "Server-sent events: each is a chunk in OpenAI's shape, the last `[DONE]`.",
}
"""What a streamed reply is, where it is asked for."""
