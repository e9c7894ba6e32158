"""The shapes of bodies and answers on the routes of memory, as JSON Schema."""

from __future__ import annotations

from elision.middleware.gateway.shapes import Shape, closed, lenient

_TEXT: Shape = {"type": "string"}
_TEXTS: Shape = {"type": "array", "items": _TEXT}
_NUMBER: Shape = {"type": "number"}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_ANY: Shape = {"type": "object"}
_MAYBE: Shape = {"type": ["number", "null"]}


def _object(required: str = "", /, **properties: Shape) -> Shape:
    return {"type": "object", "required": required.split(), "properties": properties}


def _page(item: Shape) -> Shape:
    return _object("object data", object={"const": "list"}, data={"type": "array", "items": item})


RECORD = _object(
    "id namespace kind version", id=_TEXT, namespace=_TEXTS, key=_TEXT, kind=_TEXT, state=_TEXT,
    trust=_TEXT, version=_COUNT, text=_TEXT, value=_ANY, similarity=_MAYBE, effect=_ANY,
)  # fmt: skip
RECORDS = _page(RECORD)
QUERY = lenient(closed(_object(
    "query", query=_TEXT, k=_COUNT, namespace=_TEXTS, kinds=_TEXTS, states=_TEXTS, where=_ANY,
    least_similarity=_NUMBER,
)))  # fmt: skip
FOUND = _object("data code", data={"type": "array", "items": RECORD}, code=_TEXT)
ACTION = lenient(closed(_object("action", action=_TEXT, reason=_TEXT)))
STATS = {"type": "object", "additionalProperties": _NUMBER}
SELECTOR = lenient(closed(_object(
    "", reason=_TEXT, namespace=_TEXTS, ids=_TEXTS, subject=_TEXT, kinds=_TEXTS,
    older_than_s=_NUMBER, target=_TEXT, everything={"type": "boolean"},
    dry_run={"type": "boolean"},
)))  # fmt: skip
ERASED = _object("id state counts", id=_TEXT, state=_TEXT, counts=_ANY, signature=_TEXT)
RECEIPTS = _page(ERASED)
PLANNED = _object("dry_run counts", dry_run={"const": True}, counts=_ANY)
CONCERNED = _object("target_id counts", target_id=_TEXT, counts=_ANY)
EPISODE = _object(
    "id state lane", id=_TEXT, state=_TEXT, lane=_TEXT, reward=_MAYBE, tokens=_COUNT, cost=_NUMBER
)
REWARD = lenient(closed(_object(
    "reward", reward={"type": "number", "minimum": 0, "maximum": 1}, success={"type": "boolean"},
    by={"enum": ["checker", "env", "human", "judge"]},
)))  # fmt: skip
REWARDED = _object("id taken", id=_TEXT, taken={"type": "boolean"}, reward=_MAYBE)
