"""The shapes of bodies and answers on the routes of the register, as JSON Schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, get_args

from elision.guards.targets import Action, Kind, State

Shape = dict[str, Any]


def _object(required: str = "", /, **properties: Shape) -> Shape:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(item: Shape) -> Shape:
    return {"type": "array", "items": item}


def _page(item: Shape) -> Shape:
    return _object(
        "object data has_more", object={"const": "list"}, data=_list(item), has_more=_YES_NO
    )


_TEXT: Shape = {"type": "string"}
_TEXTS = _list(_TEXT)
_COUNT: Shape = {"type": "integer", "minimum": 0}
_NUMBER: Shape = {"type": "number"}
_YES_NO: Shape = {"type": "boolean"}
_STATE: Shape = {"enum": [*get_args(State)]}
_MOMENT: Shape = {
    "oneOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}],
    "description": "ISO 8601 with a zone, or seconds since 1970.",
}
_COUNTS: Shape = {"type": "object", "additionalProperties": _COUNT}

_PHRASE = {
    "oneOf": [
        _TEXT,
        _object(
            "text",
            text=_TEXT,
            mode={"enum": ["hard", "soft"]},
            boundary={"enum": ["auto", "yes", "no"]},
            allow_echo=_YES_NO,
            beta={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        ),
    ]
}
_FIELDS: dict[str, Shape] = {
    "title": _TEXT,
    "kind": {"enum": [*get_args(Kind)]},
    "phrases": _list(_PHRASE),
    "names": _TEXTS,
    "probes": _TEXTS,
    "passages": _TEXTS,
    "answers": _TEXTS,
    "exceptions": _TEXTS,
    "action": {"enum": [*get_args(Action)]},
    "scope": _object(models=_TEXTS, keys=_TEXTS),
    "effective_at": _MOMENT,
    "expires_at": _MOMENT,
    "review_at": _MOMENT,
    "case_ref": _TEXT,
    "legal_basis": _TEXT,
    "tenant": _TEXT,
}
_GIVEN: dict[str, Shape] = {
    "id": _TEXT,
    "state": _STATE,
    "created_at": _MOMENT,
    "revoked_at": _MOMENT,
    "requested_by": _TEXT,
    "approved_by": _TEXT,
}
TARGET_BODY = _object("title", **_FIELDS, draft=_YES_NO)
TARGET = _object("id state", **_GIVEN, **_FIELDS, withheld=_TEXTS)
TARGETS = _page(TARGET)

_WARNING = _object("code message", code=_TEXT, message=_TEXT, phrase={"type": ["integer", "null"]})
_COLLISION = _object(
    target_id=_TEXT, theirs=_COUNT, ours=_COUNT, kind={"enum": ["same", "within", "around"]}
)
_SELF_TEST = _object(
    backend=_TEXT, n_phrases=_COUNT, cases=_COUNT, leaked=_COUNT,
    by_family={"type": "object"}, by_check={"type": "object"},
)  # fmt: skip
REGISTERED = _object(
    "id state epoch warnings", id=_TEXT, state=_STATE, epoch=_COUNT, warnings=_list(_WARNING)
)
MANY_REGISTERED = _object("data", object={"const": "list"}, data=_list(REGISTERED))
EVALUATED = _object(
    "dry_run state warnings", dry_run={"const": True}, state=_STATE, warnings=_list(_WARNING),
    collisions=_list(_COLLISION), self_test=_SELF_TEST,
)  # fmt: skip
CHANGED = _object("id state epoch", id=_TEXT, state=_STATE, epoch=_COUNT, expires_at=_MOMENT)
REASON = _object(reason=_TEXT)
NEW_END = _object("expires_at", expires_at=_MOMENT, reason=_TEXT)

_LINE = {"oneOf": [_TEXT, _object(text=_TEXT, messages=_list({"type": "object"}), about=_YES_NO)]}
_RATE = _object(hits=_COUNT, n=_COUNT, share=_NUMBER, low=_NUMBER, high=_NUMBER)
CORPUS = _object("corpus", corpus=_list(_LINE))
PREVIEW = _object(
    "state blocked n_hits", state=_STATE, blocked=_RATE, n_hits=_COUNT, by_form=_COUNTS,
    by_phrase=_list(_object(phrase=_COUNT, hits=_COUNT, texts=_COUNT, by_form=_COUNTS)),
    most_blocked=_list(_object(phrase=_COUNT, **_RATE["properties"])),
    collisions=_list(_COLLISION), warnings=_list(_WARNING),
    examples=_list(_object(text=_COUNT, phrase=_COUNT, form=_TEXT, excerpt=_TEXT)),
)  # fmt: skip
TRAFFIC = _object("lines", lines=_list(_LINE), targets=_TEXTS)
IMPACT = _object(
    "n_lines false_positives", n_lines=_COUNT, false_positives=_RATE, caught=_RATE,
    added_ms=_object(p50=_NUMBER, p95=_NUMBER),
    by_target=_list(_object(target_id=_TEXT, hits=_COUNT, lines=_COUNT)),
)  # fmt: skip
SEEN = _object(
    "target_id observing hits replies", target_id=_TEXT, observing=_YES_NO, hits=_COUNT,
    replies=_COUNT, since=_MOMENT,
)  # fmt: skip

RECEIPT = _object(
    "type receipt_id tenant target_id target_commitment statement key_id signature",
    type={"const": "suppression-receipt"}, receipt_id=_TEXT, tenant=_TEXT, target_id=_TEXT,
    target_commitment=_TEXT, kind=_TEXT, action=_TEXT, state=_STATE, case_ref=_TEXT,
    scope=_FIELDS["scope"], effective_at=_MOMENT, expires_at=_MOMENT, revoked_at=_MOMENT,
    epoch=_COUNT, policy_version=_TEXT, guard_versions={"type": "object"}, self_test=_SELF_TEST,
    audit_head=_object(seq=_COUNT, hash=_TEXT), statement=_TEXT, issued_at=_MOMENT, key_id=_TEXT,
    signature=_TEXT,
)  # fmt: skip

ENTRY = _object(
    "seq prev_hash hash", seq=_COUNT, ts=_TEXT, tenant=_TEXT, actor=_TEXT, action=_TEXT,
    object_id=_TEXT, object_version=_COUNT, details={"type": "object"}, prev_hash=_TEXT, hash=_TEXT,
)  # fmt: skip
ENTRIES = _page(ENTRY)
VERIFIED = _object("ok count", ok=_YES_NO, count=_COUNT)
CHECKPOINT = _object(
    "log_id seq hash count ts signature", log_id=_TEXT, seq=_COUNT, hash=_TEXT, count=_COUNT,
    ts=_TEXT, signature=_TEXT,
)  # fmt: skip
PUBLIC_KEY = _object("algorithm public_key", algorithm=_TEXT, key_id=_TEXT, public_key=_TEXT)
EXPORTED: Shape = {"type": "object", "description": "A target, or the manifest."}
IMPORTED = _object("n epoch", n=_COUNT, epoch=_COUNT)

TO_CHECK: Shape = {
    "type": "object",
    "properties": {
        "text": _TEXT,
        "messages": _list(_object("role", role=_TEXT, content={})),
        "model": _TEXT,
    },
    "oneOf": [{"required": ["text"]}, {"required": ["messages"]}],
}
CHECKED = _object(
    "verdict hits covered", verdict={"enum": ["allow", "redact", "rewind", "refuse"]},
    hits=_list(
        _object(
            "target_id what phrase level start end action", target_id=_TEXT, what=_TEXT,
            phrase=_COUNT, level=_TEXT, start=_COUNT, end=_COUNT,
            action={"enum": [*get_args(Action)]}, message={"type": ["integer", "null"]},
        )
    ),
    covered=_YES_NO,
)  # fmt: skip

_ERROR = _object(
    "error",
    error=_object(
        "message type param code",
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    ),
)


def takes(body: Shape, *, required: bool = True, lines: Shape | None = None) -> Shape:
    """Return the part of a route's description that tells what body it takes.

    Args:
        body: Of a JSON body.
        required: Whether there must be one.
        lines: Of each line, where a body of lines is taken as well.
    """
    content = {"application/json": {"schema": body}}
    if lines is not None:
        content["application/jsonl"] = {"schema": lines}
    return {"requestBody": {"required": required, "content": content}}


def answers(
    body: Shape, *errors: int, status: int = 200, media: str = "application/json"
) -> dict[int | str, Any]:
    """Return the part that tells what a route answers: *body*, or the envelope of an error."""
    wrong = (401, *errors)
    told: dict[int | str, Any] = {
        status: {"description": HTTPStatus(status).phrase, "content": {media: {"schema": body}}}
    }
    envelope = {"application/json": {"schema": _ERROR}}
    phrases = {code: HTTPStatus(code).phrase for code in sorted(wrong)}
    return told | {
        code: {"description": phrase, "content": envelope} for code, phrase in phrases.items()
    }
