"""Which parts of a JSON schema a finite text satisfies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from elision.middleware.interventions.grammar.parts import (
    Schema,
    listed,
    over_parts,
    parts,
    resolved,
)

MOST_VISITS: Final = 50_000
"""Looks at parts of one schema, 0.2 s; past them, all are taken to have an end."""
_SCALARS: Final = ("string", "number", "integer", "boolean", "null")


class Endings:
    """Which parts of a schema some finite text satisfies, as far as recursion decides it.

    The least fixed point: a part has an end if its required members and least items have one.
    Whether bounds contradict each other is not looked at.

    Args:
        root: The schema; not to be changed while this lives.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts = list(parts(root))
        self._ids = frozenset(map(id, self._parts))
        self._known: set[int] = set()
        visits, grows = 0, True
        while grows and visits < MOST_VISITS:
            before = len(self._known)
            left = [part for part in self._parts if id(part) not in self._known]
            self._known.update(id(part) for part in left if self._has_end(part))
            grows, visits = len(self._known) > before, visits + len(left)
        self._is_sure = not grows

    def of(self, schema: Schema) -> bool:
        """Return whether a text of *schema*, a part of the root, can end."""
        if isinstance(schema, bool):
            return schema
        return not isinstance(schema, Mapping) or id(schema) in self._known

    def without_endless(self, schema: Schema) -> Schema:
        """Return *schema* with the parts that have no end as ``false``."""
        if not self._is_sure or len(self._known) == len(self._parts):
            return schema
        if not self.of(schema):
            return False
        return over_parts(schema, self.without_endless) if isinstance(schema, Mapping) else schema

    def _has_end(self, schema: Mapping[str, Any]) -> bool:
        """Return whether *schema* has an end, by what is known of its parts."""
        if not all(self.of(part) for part in self._all_of(schema)):
            return False
        if any(not any(map(self.of, listed(schema, key))) for key in ("anyOf", "oneOf")
               if listed(schema, key)):  # fmt: skip
            return False
        if "enum" in schema or "const" in schema:
            return True
        kinds = schema.get("type", [*_SCALARS])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        return not isinstance(kinds, list | tuple) or any(self._can_be(schema, k) for k in kinds)

    def _all_of(self, schema: Mapping[str, Any]) -> Iterator[Schema]:
        yield from listed(schema, "allOf")
        if isinstance(schema.get("$ref"), str):
            yield self._resolve(schema["$ref"])

    def _can_be(self, schema: Mapping[str, Any], kind: object) -> bool:
        if kind == "object":
            return all(self.of(part) for part in _required(schema))
        if kind == "array":
            return all(self.of(part) for part in _first_items(schema))
        return True

    def _resolve(self, pointer: str) -> Schema:
        """Return what *pointer* names; true where it is not a part of the root."""
        if not pointer.startswith("#"):
            return True
        found = resolved(self._root, pointer)
        return found if isinstance(found, bool) or id(found) in self._ids else True


def _required(schema: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the schemas of the members that an object must have."""
    known = schema.get("properties")
    known = known if isinstance(known, Mapping) else {}
    other = True if "patternProperties" in schema else schema.get("additionalProperties", True)
    for name in listed(schema, "required"):
        if isinstance(name, str):
            yield known.get(name, other)


def _first_items(schema: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the schemas of the items that an array must have, each once."""
    least = schema.get("minItems", 0)
    least = least if isinstance(least, int) else 0
    first = listed(schema, "prefixItems") or listed(schema, "items")
    yield from first[:least]
    if least > len(first):
        rest = "additionalItems" if listed(schema, "items") else "items"
        yield schema.get(rest, True)
