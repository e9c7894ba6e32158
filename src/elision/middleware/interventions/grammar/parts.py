"""The parts of a JSON schema: which keywords hold schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

Schema: TypeAlias = Any
"""A JSON schema: an object, true or false; or something else, where the caller errs."""

_ONE: Final = frozenset(
    {"additionalItems", "additionalProperties", "contains", "else", "if", "items", "not",
     "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
)  # fmt: skip
_SEVERAL: Final = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED: Final = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)


def over_parts(schema: Mapping[str, Any], change: Callable[[Schema], Schema]) -> dict[str, Any]:
    """Return *schema* with each schema directly in it as *change* returns it."""
    found = dict(schema)
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            found[key] = {name: change(part) for name, part in value.items()}
        elif key in _SEVERAL and isinstance(value, list | tuple):
            found[key] = [change(part) for part in value]
        elif key in _ONE:
            found[key] = change(value)
    return found


def parts(schema: Schema) -> Iterator[Mapping[str, Any]]:
    """Yield every schema in *schema* that is an object, inner ones first."""
    if isinstance(schema, Mapping):
        inner: list[Schema] = []
        over_parts(schema, inner.append)
        for part in inner:
            yield from parts(part)
        yield schema


def listed(schema: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list under *key*; an empty one if there is none."""
    value = schema.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def resolved(root: Schema, pointer: str) -> Schema | None:
    """Return what the JSON pointer *pointer*, such as ``#/$defs/name``, names in *root*.

    None if it names nothing.
    """
    found = root
    for step in unquote(pointer[1:]).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list) and _is_place(step) and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def _is_place(step: str) -> bool:
    """Return whether *step* may be a place in a list; digits without end are none."""
    return step.isascii() and step.isdecimal() and len(step) < 9
