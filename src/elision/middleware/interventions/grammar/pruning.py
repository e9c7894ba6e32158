"""Schemas without the choices that must not be made: none is begun that cannot be finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from elision.middleware.interventions.grammar.parts import Schema, listed, over_parts

Hides: TypeAlias = Callable[[str], bool]


def pruned(schema: Schema, hides: Hides) -> Any:
    """Return *schema* without values, alternatives and optional members that hold what is hidden.

    Every text of the result is one of *schema*; *schema* is not modified. What it insists on stays:
    there the masks end the reply.

    Args:
        schema: See `of_schema`.
        hides: Whether a text must not leave, such as `Guard.hides`.
    """
    if not isinstance(schema, Mapping):
        return schema
    found = over_parts(schema, lambda part: pruned(part, hides))
    for key in ("enum", "anyOf", "oneOf"):
        is_hidden = _holds if key == "enum" else _insists
        if left := [one for one in listed(found, key) if not is_hidden(one, hides)]:
            found[key] = left
    if isinstance(members := found.get("properties"), Mapping):
        needed = listed(schema, "required")
        found["properties"] = {
            name: part if name in needed or not hides(name) else False
            for name, part in members.items()
        }
    return found


def _holds(value: Any, hides: Hides) -> bool:
    return any(map(hides, _strings(value)))


def _insists(schema: Schema, hides: Hides) -> bool:
    """Return whether every text of *schema* is a constant that holds what is hidden."""
    if not isinstance(schema, Mapping):
        return False
    values = [schema["const"]] if "const" in schema else listed(schema, "enum")
    return bool(values) and all(_holds(value, hides) for value in values)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value:
            yield from _strings(part)
        if isinstance(value, Mapping):
            for part in value.values():
                yield from _strings(part)
