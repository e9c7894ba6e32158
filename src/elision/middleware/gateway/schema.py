"""The OpenAPI description, the plain routes included, which FastAPI does not see.

What every route may answer beside its own is added here, so that no route can forget it: who may
not call, what is no request, and the id that every response carries.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from elision.middleware.gateway.auth import PROBES, Keyring
from elision.middleware.gateway.completion_shapes import (
    CHAT,
    CHAT_REPLY,
    COMPLETION,
    COMPLETION_REPLY,
    EVENTS,
)
from elision.middleware.gateway.examples import EXAMPLES
from elision.middleware.gateway.responses.shapes import EVENTS as RESPONSE_EVENTS
from elision.middleware.gateway.responses.shapes import RESPONSE, TO_ANSWER
from elision.middleware.gateway.routes import PERMITTED, route_label
from elision.middleware.gateway.service import EPOCH_HEADER
from elision.middleware.gateway.shapes import NAMED, Shape, failures, takes
from elision.settings import ROLES

if TYPE_CHECKING:
    from fastapi import FastAPI

_KEY = {"type": "http", "scheme": "bearer", "description": "A key of the server's settings."}
_WAIT = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}
_ID = {
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "description": "The request's id: the caller's, if it is a plain one.",
    "required": True,
}
_UNREAD = 413
_MADE = {("/v1/forget", "201"): "target_id", ("/v1/responses", "200"): "response_id"}
"""What makes something that has an id, and what other routes call that id."""


def describe(app: FastAPI) -> None:
    """Make *app* describe all its routes; the description is built when first asked for."""
    app.openapi = partial(_build, app)  # type: ignore[method-assign]


def text_route(summary: str, body: Shape, reply: Shape, events: Shape = EVENTS) -> dict[str, Any]:
    """Return the description of a route that FastAPI does not see and that may stream its reply.

    Args:
        summary: What it does.
        body: Of its requests.
        reply: What it answers to one that does not ask for a stream.
        events: What it answers to one that does.
    """
    whole = {"application/json": {"schema": reply}, "text/event-stream": {"schema": events}}
    answered = {
        "description": "The reply; server-sent events if it is streamed",
        "content": whole,
        "headers": {EPOCH_HEADER: {"schema": {"type": "integer", "minimum": 0}}},
    }
    told = {str(code): told for code, told in failures(400, 404, 429, 502, 503, 504).items()}
    for code in ("429", "503"):
        told[code]["headers"] = {"retry-after": _WAIT}
    responses = {"200": answered, **told}
    return {"post": {"tags": ["text"], "summary": summary, **takes(body), "responses": responses}}


_PLAIN = {
    "/v1/chat/completions": text_route("Answer a conversation", CHAT, CHAT_REPLY),
    "/v1/completions": text_route("Continue one prompt or several", COMPLETION, COMPLETION_REPLY),
    "/v1/responses": text_route(
        "Answer a conversation as a response", TO_ANSWER, RESPONSE, RESPONSE_EVENTS
    ),
}
"""Routes that FastAPI does not see."""


def _build(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schema["paths"] |= _PLAIN
        is_open = Keyring.of(app.state.service.settings).open is not None
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                methods[method] = _complete(operation, method.upper(), path, is_open=is_open)
        for made, parameter in _MADE.items():
            _link(schema["paths"], made, parameter)
        components = schema.setdefault("components", {})
        components["schemas"] = dict(NAMED)
        components["headers"] = {"RequestId": _ID}
        components["securitySchemes"] = {"key": _KEY}
        app.openapi_schema = schema
    return app.openapi_schema


def _link(paths: dict[str, Any], made: tuple[str, str], parameter: str) -> None:
    """Tell that the id which a route answers is what other routes take as *parameter*."""
    path, status = made
    paths[path]["post"]["responses"][status]["links"] = {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {parameter: "$response.body#/id"},
        }
        for other, methods in paths.items()
        for operation in methods.values()
        if f"{{{parameter}}}" in other
    }


def _complete(
    operation: dict[str, Any], method: str, path: str, *, is_open: bool
) -> dict[str, Any]:
    """Return *operation* with who may call it and with all that any route may answer.

    The status that FastAPI thinks a wrong parameter gets is taken away.
    """
    roles = sorted(PERMITTED[method, route_label(path)])
    told = operation.get("description") or operation.get("summary", "")
    if len(roles) < len(ROLES):
        told = f"{told}\n\nRoles: {', '.join(roles)}."
    slug = re.sub(r"\W+", "_", path).strip("_")
    return (
        {"operationId": f"{slug}_{method.lower()}"}
        | _shown(operation, path)
        | {
            "description": told,
            "parameters": [_never_null(one) for one in operation.get("parameters", [])],
            "responses": _responses(operation),
            "security": _security(path, is_open=is_open),
            "x-elision-roles": roles,
        }
    )


def _shown(operation: dict[str, Any], path: str) -> dict[str, Any]:
    """Return *operation* with an example of its body, if there is one."""
    example = EXAMPLES.get(route_label(path))
    if example is None or "requestBody" not in operation:
        return operation
    body = operation["requestBody"]
    shown = body["content"]["application/json"] | {"example": example}
    return operation | {
        "requestBody": body | {"content": body["content"] | {"application/json": shown}}
    }


def _never_null(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return *parameter* without the null that FastAPI adds: what is not sent is left out."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return parameter
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return parameter | {"schema": rest | kinds[0]}


def _security(path: str, *, is_open: bool) -> list[dict[str, list[str]]]:
    if is_open:
        return []
    key: dict[str, list[str]] = {"key": []}
    return [key, {}] if path in PROBES else [key]  # from the same machine they need none


def _responses(operation: dict[str, Any]) -> dict[str, Any]:
    own = {code: told for code, told in operation["responses"].items() if code != "422"}
    codes = [401, 403, 500]
    if operation.get("parameters"):
        codes.append(400)
    if "requestBody" in operation:
        codes += [400, _UNREAD]
    whole = {str(code): told for code, told in failures(*codes).items()} | own
    header = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    return {
        code: told | {"headers": told.get("headers", {}) | header}
        for code, told in sorted(whole.items())
    }
