"""The shapes of what is told of models and engines, as JSON Schema."""

from __future__ import annotations

from elision.middleware.gateway.shapes import Shape, list_of, object_of

_TEXT: Shape = {"type": "string"}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_NUMBER: Shape = {"type": "number"}
_YES_NO: Shape = {"type": "boolean"}

MODEL = object_of(
    "id object created owned_by",
    id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT,
)  # fmt: skip
MODELS = object_of("object data", object={"const": "list"}, data=list_of(MODEL))
STATUS = object_of("status", status={"enum": ["ok", "ready", "not ready"]})
ENGINES = object_of(
    "object data",
    object={"const": "list"},
    data=list_of(
        object_of(
            "id object stats replicas", id=_TEXT, object={"const": "engine"},
            stats={"type": "object", "additionalProperties": _NUMBER},
            replicas=list_of(object_of("base_url is_healthy is_proved", base_url=_TEXT,
                                       is_healthy=_YES_NO, is_proved=_YES_NO, why=_TEXT)),
        )
    ),
)  # fmt: skip
