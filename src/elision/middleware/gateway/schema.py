"""The OpenAPI description, the plain routes included, which FastAPI does not see."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from elision.middleware.gateway.routes import PERMITTED, route_label
from elision.middleware.gateway.service import EPOCH_HEADER
from elision.middleware.guidance import METHODS
from elision.settings import ROLES

if TYPE_CHECKING:
    from fastapi import FastAPI

_TEXTS = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_METHOD = {
    "description": "Its settings; true for its defaults, null for none.",
    "oneOf": [{"type": "object"}, {"type": "boolean"}, {"type": "null"}],
}
_SHARED: dict[str, Any] = {
    "model": {"type": "string", "description": "ALIAS or ALIAS@PROFILE."},
    "n": {"type": "integer", "minimum": 1, "maximum": 16},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "repetition_penalty": {"type": "number", "minimum": 0.01, "maximum": 100},
    "logit_bias": {"type": "object", "additionalProperties": {"type": "number"}},
    "stop": _TEXTS,
    "max_tokens": {"type": "integer", "minimum": 1},
    "seed": {"type": "integer"},
    "stream": {"type": "boolean"},
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": {"type": "boolean"}},
    },
    "elision": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "deterministic": {"type": "boolean"},
            "guidance": {
                "type": "object",
                "additionalProperties": False,
                "properties": dict.fromkeys(METHODS, _METHOD),
            },
            "profile": {"type": "string"},
            "report": {"type": "boolean"},
            "rng": {"enum": ["counter", "torch"]},
            "session": {"type": "string"},
            "speculation": {"enum": ["auto", "off", "force"]},
            "tenant": {"type": "string"},
            "timeout_s": {"type": "number", "exclusiveMinimum": 0},
            "trace": {"type": "boolean"},
        },
    },
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
    },
}
_CHAT = {
    "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
    "max_completion_tokens": {"type": "integer", "minimum": 1},
    "logprobs": {"type": "boolean"},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
    "continue_final_message": {"type": "boolean"},
}
_TEXT = {
    "prompt": {"description": "A text, token ids, or an array of either."},
    "echo": {"type": "boolean"},
    "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
}


def describe(app: FastAPI) -> None:
    """Make *app* describe all its routes; the description is built when first asked for."""
    app.openapi = partial(_build, app)  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schema["paths"] |= {
            "/v1/chat/completions": _post("Answer a conversation", "messages", _CHAT),
            "/v1/completions": _post("Continue one prompt or several", "prompt", _TEXT),
        }
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                _complete(operation, method.upper(), path)
        schema.setdefault("components", {})["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"}
        }
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add who may call, and take away the status that FastAPI thinks a wrong parameter gets."""
    operation["responses"].pop("422", None)
    roles = sorted(PERMITTED[method, route_label(path)])
    operation["security"] = [{"key": []}]
    operation["x-elision-roles"] = roles
    if len(roles) < len(ROLES):
        told = operation.get("description") or operation.get("summary", "")
        operation["description"] = f"{told}\n\nRoles: {', '.join(roles)}."


def _post(summary: str, required: str, fields: dict[str, Any]) -> dict[str, Any]:
    body = {"type": "object", "required": ["model", required], "properties": _SHARED | fields}
    replies = {
        "200": {
            "description": "The reply; server-sent events if it is streamed",
            "headers": {EPOCH_HEADER: {"schema": {"type": "integer"}}},
        },
        "400": {"description": "The request cannot be served as asked"},
        "429": {"description": "The queue is full; retry-after says when to try again"},
    }
    content = {"required": True, "content": {"application/json": {"schema": body}}}
    return {
        "post": {
            "tags": ["text"],
            "summary": summary,
            "requestBody": content,
            "responses": replies,
        }
    }
