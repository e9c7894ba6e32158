"""JSON schemas made ready: what asks for nothing goes, what never ends is ruled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from elision.middleware.interventions.grammar.endings import Endings
from elision.middleware.interventions.grammar.limits import (
    DEEPEST,
    FORMATS,
    check_limits,
    too_deep,
)
from elision.middleware.interventions.grammar.parts import Schema, over_parts

_NEUTRAL: Final[Mapping[str, tuple[Schema, ...]]] = {
    "uniqueItems": (False,),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "propertyNames": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
}
"""Keywords that llguidance does not know, with values that ask for nothing."""


def prepared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return *schema* with the same texts, in words that llguidance has; *schema* is not modified.

    Formats that are annotations and keywords that ask for nothing are left out; parts that no
    finite text satisfies become ``false``, or a model could enter one and never come out.

    Raises:
        RequestError: If it is nested too deeply, or `check_limits` finds it too costly.
    """
    try:
        plain = _plain(schema, 0)
        check_limits(plain)
        finite = Endings(plain).without_endless(plain)
    except RecursionError:
        raise too_deep() from None  # its traceback would go through the schema
    return {"enum": []} if finite is False else finite


def _plain(schema: Schema, depth: int) -> Schema:
    if depth > DEEPEST:
        raise too_deep()
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if not _asks_nothing(key, value)}
    return over_parts(kept, lambda part: _plain(part, depth + 1))


def _asks_nothing(key: str, value: Schema) -> bool:
    if key == "format":
        return isinstance(value, str) and value not in FORMATS
    return key in _NEUTRAL and value in _NEUTRAL[key]
