"""The shapes of bodies and answers on the routes of the register, as JSON Schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, get_args

from elision.errors import ConfigError
from elision.guards.phrase import MAX_PHRASE_CHARS, Boundary, Mode
from elision.guards.scope import MAX_ENTRIES
from elision.guards.targets import (
    MAX_NOTE_CHARS,
    MAX_PASSAGE_CHARS,
    MAX_PHRASES,
    MAX_TITLE_CHARS,
    Action,
    Kind,
    State,
)

Shape = dict[str, Any]

NAMED: dict[str, Shape] = {}
"""The shapes that have a name in the description, filled when their modules are imported."""


def named(name: str, shape: Shape) -> Shape:
    """Give *shape* a name in the description; return what stands for it wherever it is used.

    Raises:
        ConfigError: If the name is another shape's.
    """
    if NAMED.setdefault(name, shape) != shape:
        raise ConfigError(f"two shapes have the name {name!r}")
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: str = "", /, **properties: Shape) -> Shape:
    """Return the shape of an object; *required* names the fields that must be there, by blanks."""
    return {"type": "object", "required": required.split(), "properties": properties}


def list_of(item: Shape) -> Shape:
    """Return the shape of a list of *item*."""
    return {"type": "array", "items": item}


def closed(shape: Shape) -> Shape:
    """Return the shape of an object that may hold nothing else."""
    return shape | {"additionalProperties": False}


def lenient(shape: Shape) -> Shape:
    """Return the shape of an object in which null is as good as a field that is not there."""
    needed, null = shape["required"], {"type": "null"}
    fields = shape["properties"].items()
    maybe = {key: one if key in needed else {"anyOf": [one, null]} for key, one in fields}
    return shape | {"properties": maybe}


def page_of(item: Shape) -> Shape:
    """Return the shape of a list that may go on behind its last *item*."""
    return object_of(
        "object data has_more", object={"const": "list"}, data=list_of(item), has_more=_YES_NO
    )


_TEXT: Shape = {"type": "string"}
_TEXTS = list_of(_TEXT)
_MAYBE_TEXT: Shape = {"type": ["string", "null"]}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_WHOLE: Shape = {"type": "integer"}
_NUMBER: Shape = {"type": "number"}
_YES_NO: Shape = {"type": "boolean"}
_STATE: Shape = {"enum": [*get_args(State)]}
_MOMENT: Shape = {
    "anyOf": [
        {"type": "string"},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 253_370_764_800},
        {"type": "null"},
    ],
    "description": "ISO 8601 with a zone, or seconds since 1970.",
}
_COUNTS: Shape = {"type": "object", "additionalProperties": _COUNT}

_CONTROL = "\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029"


def _written(most: int) -> Shape:
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": "\\S"}


def line_of(most: int) -> Shape:
    """Return the shape of one line of text, not blank, of at most *most* characters."""
    inner = f"[^{_CONTROL}]*"
    return _written(most) | {"pattern": f"^{inner}[^\\s{_CONTROL}]{inner}$"}


_PHRASE_TEXT = _written(MAX_PHRASE_CHARS) | {"description": "At least one letter or digit."}
_PHRASE = {
    "anyOf": [
        _PHRASE_TEXT,
        closed(
            object_of(
                "text",
                text=_PHRASE_TEXT,
                mode={"enum": [*get_args(Mode)]},
                boundary={"enum": [*get_args(Boundary)]},
                allow_echo=_YES_NO,
                beta={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            )
        ),
    ]
}
_ENFORCED = ("phrases", "names", "probes", "passages", "answers")
_LINES = list_of(_written(MAX_PHRASE_CHARS)) | {"maxItems": MAX_PHRASES}
_ENTRIES = list_of(line_of(128)) | {"maxItems": MAX_ENTRIES}
_NOTE: Shape = {"anyOf": [{"const": ""}, line_of(MAX_NOTE_CHARS)]}
_FIELDS: dict[str, Shape] = {
    "title": line_of(MAX_TITLE_CHARS),
    "kind": {"enum": [*get_args(Kind)]},
    "phrases": list_of(_PHRASE) | {"maxItems": MAX_PHRASES},
    "names": _LINES,
    "probes": _LINES,
    "passages": list_of(_written(MAX_PASSAGE_CHARS)) | {"maxItems": MAX_PHRASES},
    "answers": _LINES,
    "exceptions": _LINES,
    "action": {"enum": [*get_args(Action)]},
    "scope": closed(object_of(models=_ENTRIES, keys=_ENTRIES)),
    "effective_at": _MOMENT,
    "expires_at": _MOMENT,
    "review_at": _MOMENT,
    "case_ref": _NOTE,
    "legal_basis": _NOTE,
    "tenant": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_GIVEN: dict[str, Shape] = {
    "id": _TEXT,
    "state": _STATE,
    "created_at": _MOMENT,
    "revoked_at": _MOMENT,
    "requested_by": _TEXT,
    "approved_by": _TEXT,
}
TARGET_BODY = named(
    "TargetBody",
    closed(object_of("title", **_FIELDS, draft=_YES_NO))
    | {
        "description": "At least one of phrases, names, probes, passages and answers is there.",
        "anyOf": [{"required": [key], "properties": {key: {"minItems": 1}}} for key in _ENFORCED],
        "examples": [
            {"title": "the capital", "phrases": ["Paris"]},
            {
                "title": "a customer",
                "kind": "person",
                "names": ["R. Franklin"],
                "phrases": ["Rosalind Franklin", {"text": "sk-4711-8080-1234", "beta": 0.6}],
                "action": "redact",
            },
        ],
    },
)
TARGET = named("Target", object_of("id state", **_GIVEN, **_FIELDS, withheld=_TEXTS))
TARGETS = page_of(TARGET)

_WARNING = object_of(
    "code message", code=_TEXT, message=_TEXT, phrase={"type": ["integer", "null"]}
)
_COLLISION = object_of(
    target_id=_TEXT, theirs=_COUNT, ours=_COUNT, kind={"enum": ["same", "within", "around"]}
)
_SELF_TEST = object_of(
    backend=_TEXT, n_phrases=_COUNT, cases=_COUNT, leaked=_COUNT,
    by_family={"type": "object"}, by_check={"type": "object"},
)  # fmt: skip
REGISTERED = object_of(
    "id state epoch warnings", id=_TEXT, state=_STATE, epoch=_COUNT, warnings=list_of(_WARNING)
)
MANY_REGISTERED = object_of("data", object={"const": "list"}, data=list_of(REGISTERED))
EVALUATED = object_of(
    "dry_run state warnings", dry_run={"const": True}, state=_STATE, warnings=list_of(_WARNING),
    collisions=list_of(_COLLISION), self_test=_SELF_TEST,
)  # fmt: skip
MANY_EVALUATED = object_of("data", object={"const": "list"}, data=list_of(EVALUATED))
CHANGED = object_of("id state epoch", id=_TEXT, state=_STATE, epoch=_COUNT, expires_at=_MOMENT)
REASON = lenient(closed(object_of(reason=_TEXT)))
NEEDED_REASON = closed(object_of("reason", reason=_TEXT))
NEW_END = lenient(closed(object_of("expires_at", expires_at=_MOMENT, reason=_TEXT)))

_MESSAGE: Shape = {"description": "A message with a content; what is none is passed over."}
_LINE = {"oneOf": [_TEXT, object_of(text=_MAYBE_TEXT, messages=list_of(_MESSAGE), about=_YES_NO)]}
_RATE = object_of(hits=_COUNT, n=_COUNT, share=_NUMBER, low=_NUMBER, high=_NUMBER)
CORPUS = object_of("corpus", corpus=list_of(_LINE))
PREVIEW = object_of(
    "state blocked n_hits", state=_STATE, blocked=_RATE, n_hits=_COUNT, by_form=_COUNTS,
    by_phrase=list_of(object_of(phrase=_COUNT, hits=_COUNT, texts=_COUNT, by_form=_COUNTS)),
    most_blocked=list_of(object_of(phrase=_COUNT, **_RATE["properties"])),
    collisions=list_of(_COLLISION), warnings=list_of(_WARNING),
    examples=list_of(object_of(text=_COUNT, phrase=_COUNT, form=_TEXT, excerpt=_TEXT)),
)  # fmt: skip
TRAFFIC = lenient(object_of("lines", lines=list_of(_LINE), targets=_TEXTS))
IMPACT = object_of(
    "n_lines false_positives", n_lines=_COUNT, false_positives=_RATE, caught=_RATE,
    added_ms=object_of(p50=_NUMBER, p95=_NUMBER),
    by_target=list_of(object_of(target_id=_TEXT, hits=_COUNT, lines=_COUNT)),
)  # fmt: skip
SEEN = object_of(
    "target_id observing hits replies", target_id=_TEXT, observing=_YES_NO, hits=_COUNT,
    replies=_COUNT, since=_MOMENT,
)  # fmt: skip

RECEIPT = object_of(
    "type receipt_id tenant target_id target_commitment statement key_id signature",
    type={"const": "suppression-receipt"}, receipt_id=_TEXT, tenant=_TEXT, target_id=_TEXT,
    target_commitment=_TEXT, kind=_TEXT, action=_TEXT, state=_STATE, case_ref=_MAYBE_TEXT,
    scope=_FIELDS["scope"], effective_at=_MOMENT, expires_at=_MOMENT, revoked_at=_MOMENT,
    epoch=_COUNT, policy_version=_TEXT, guard_versions={"type": "object"}, self_test=_SELF_TEST,
    audit_head=object_of(seq=_COUNT, hash=_TEXT), statement=_TEXT, issued_at=_MOMENT, key_id=_TEXT,
    signature=_TEXT,
)  # fmt: skip

ENTRY = object_of(
    "seq prev_hash hash", seq=_COUNT, ts=_TEXT, tenant=_TEXT, actor=_TEXT, action=_TEXT,
    object_id=_TEXT, object_version=_COUNT, details={"type": "object"}, prev_hash=_TEXT, hash=_TEXT,
)  # fmt: skip
ENTRIES = page_of(ENTRY)
VERIFIED = object_of("ok count", ok=_YES_NO, count=_COUNT)
CHECKPOINT = object_of(
    "log_id seq hash count ts signature", log_id=_TEXT, seq=_WHOLE, hash=_TEXT, count=_WHOLE,
    ts=_TEXT, signature=_TEXT,
)  # fmt: skip
PUBLIC_KEY = object_of("algorithm public_key", algorithm=_TEXT, key_id=_TEXT, public_key=_TEXT)
EXPORTED: Shape = {"type": "object", "description": "A target, or the manifest."}
IMPORTED = object_of("n epoch", n=_COUNT, epoch=_COUNT)

TO_CHECK: Shape = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "text": _TEXT,
        "messages": list_of(object_of("role", role=_TEXT, content={})),
        "model": _TEXT,
    },
    "oneOf": [{"required": ["text"]}, {"required": ["messages"]}],
}
CHECKED = object_of(
    "verdict hits covered", verdict={"enum": ["allow", "redact", "rewind", "refuse"]},
    hits=list_of(
        object_of(
            "target_id what phrase level start end action", target_id=_TEXT, what=_TEXT,
            phrase=_COUNT, level=_TEXT, start=_COUNT, end=_COUNT,
            action={"enum": [*get_args(Action)]}, message={"type": ["integer", "null"]},
        )
    ),
    covered=_YES_NO,
)  # fmt: skip

ERROR = named(
    "Error",
    object_of("error", error=object_of(
        "message type param code", message=_TEXT, type=_TEXT, param=_MAYBE_TEXT, code=_MAYBE_TEXT,
    )),
)  # fmt: skip


def takes(body: Shape, *, required: bool = True, lines: Shape | None = None) -> Shape:
    """Return the part of a route's description that tells what body it takes.

    Args:
        body: Of a JSON body.
        required: Whether there must be one.
        lines: Of each line, where a body of lines is taken as well, or a bare list of them.
    """
    content = {"application/json": {"schema": body}}
    if lines is not None:
        content["application/json"] = {"schema": {"anyOf": [body, list_of(lines)]}}
        content["application/jsonl"] = {"schema": lines}
    return {"requestBody": {"required": required, "content": content}}


def answers(
    body: Shape, *errors: int, status: int = 200, media: str = "application/json"
) -> dict[int | str, Any]:
    """Return the part that tells what a route answers: *body*, or the envelope of an error.

    What any route may answer (401, 403, 500, and to a body 400 and 413) need not be named.
    """
    told: dict[int | str, Any] = {
        status: {"description": HTTPStatus(status).phrase, "content": {media: {"schema": body}}}
    }
    return told | failures(*errors)


def failures(*codes: int) -> dict[int | str, Any]:
    """Return what tells that errors of these status codes come in the envelope."""
    content = {"application/json": {"schema": ERROR}}
    return {
        code: {"description": HTTPStatus(code).phrase, "content": content} for code in sorted(codes)
    }
