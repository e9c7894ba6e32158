"""The shapes of what turns texts into vectors and tokens, as JSON Schema."""

from __future__ import annotations

from typing import Any, Final

Shape = dict[str, Any]

N_INPUTS: Final = 2048
"""Most texts of one request for embeddings, as in OpenAI's API."""

_COUNT: Shape = {"type": "integer", "minimum": 0}
_TEXT: Shape = {"type": "string"}
_FLAG: Shape = {"type": ["boolean", "null"]}
_IDS: Shape = {"type": "array", "items": _COUNT}
_SOME_TEXT: Shape = {"type": "string", "minLength": 1}
_SOME_IDS: Shape = _IDS | {"minItems": 1}


def _object(required: str, /, **properties: Shape) -> Shape:
    return {"type": "object", "required": required.split(), "properties": properties}


def _batch(item: Shape) -> Shape:
    return {"type": "array", "minItems": 1, "maxItems": N_INPUTS, "items": item}


TO_EMBED = _object(
    "model input",
    model=_TEXT | {"description": "The encoder's alias."},
    input={
        "description": "A text, several, or token ids of the encoder's own tokenizer.",
        "oneOf": [_SOME_TEXT, _batch(_SOME_TEXT), _SOME_IDS, _batch(_SOME_IDS)],
    },
    encoding_format={"enum": ["float", "base64", None]},
    dimensions={"type": ["integer", "null"], "minimum": 1},
    user={"type": ["string", "null"]},
)
_VECTOR: Shape = {
    "oneOf": [
        {"type": "array", "items": {"type": "number"}},
        _TEXT | {"description": "base64 of little-endian float32"},
    ]
}
EMBEDDINGS = _object(
    "object data model usage",
    object={"const": "list"},
    data={
        "type": "array",
        "items": _object(
            "object index embedding",
            object={"const": "embedding"},
            index=_COUNT,
            embedding=_VECTOR,
        ),
    },
    model=_TEXT,
    usage=_object("prompt_tokens total_tokens", prompt_tokens=_COUNT, total_tokens=_COUNT),
)

_MESSAGES: Shape = {"type": "array", "minItems": 1, "items": {"type": "object"}}
TO_TOKENIZE = {
    "oneOf": [
        _object(
            "prompt",
            model=_TEXT,
            prompt=_TEXT,
            add_special_tokens=_FLAG,
            return_token_strs=_FLAG,
        ),
        _object(
            "messages",
            model=_TEXT,
            messages=_MESSAGES,
            add_special_tokens=_FLAG,
            add_generation_prompt=_FLAG,
            continue_final_message=_FLAG,
            return_token_strs=_FLAG,
            tools={"type": ["array", "null"], "items": {"type": "object"}},
        ),
    ]
}
TOKENIZED = _object(
    "count max_model_len tokens",
    count=_COUNT,
    max_model_len={"type": ["integer", "null"]},
    tokens=_IDS,
    token_strs={"type": ["array", "null"], "items": _TEXT},
)
TO_DETOKENIZE = _object("tokens", model=_TEXT, tokens=_IDS)
DETOKENIZED = _object("prompt", prompt=_TEXT)
TOKENIZER = _object("tokenizer_class", tokenizer_class=_TEXT, model_max_length=_COUNT)
