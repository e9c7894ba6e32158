"""What a schema may cost: told before it is compiled, for there the stack is not bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest

from elision.errors import RequestError
from elision.middleware.interventions.grammar import check, of_schema
from elision.middleware.interventions.grammar.schema import prepared
from elision.testing import byte_lexicon

Hop = Callable[[dict[str, Any]], dict[str, Any]]

HOPS: dict[str, Hop] = {
    "member": lambda to: {"type": "object", "properties": {"x": to}},
    "needed member": lambda to: {"type": "object", "properties": {"x": to}, "required": ["x"]},
    "item": lambda to: {"type": "array", "items": to},
    "first item": lambda to: {"type": "array", "prefixItems": [to]},
    "alternative": lambda to: {"anyOf": [to, {"type": "null"}]},
    "part": lambda to: {"allOf": [to, {"type": ["string", "object"]}]},
    "beside": lambda to: {**to, "type": ["string", "object", "array"]},
    "bare": lambda to: to,
    "any member": lambda to: {"type": "object", "additionalProperties": to},
}


def chain(hop: Hop, n: int, last: Any = None, where: str = "$defs") -> dict[str, Any]:
    """Return a schema whose parts lead to each other, *n* times."""
    places = {f"d{k}": hop({"$ref": f"#/{where}/d{k + 1}"}) for k in range(n)}
    places[f"d{n}"] = {"type": "string"} if last is None else last
    return {where: places, "$ref": f"#/{where}/d0"}


def longest(hop: Hop, **more: Any) -> dict[str, Any]:
    """Return the longest such schema that is taken."""
    n = bisect_left(range(210), True, key=lambda n: not is_taken(chain(hop, n, **more)))
    return chain(hop, n - 1, **more)


def is_taken(schema: dict[str, Any]) -> bool:
    try:
        prepared(schema)
    except RequestError:
        return False
    return True


def tree(depth: int) -> dict[str, Any]:
    places = {
        f"d{k}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{k + 1}"},
                                                   "b": {"$ref": f"#/$defs/d{k + 1}"}}}
        for k in range(depth)
    }  # fmt: skip
    return {"$defs": {**places, f"d{depth}": {"type": "null"}}, "$ref": "#/$defs/d0"}


def wide_circle(n: int) -> dict[str, Any]:
    places = {
        f"d{k}": {"anyOf": [{"type": "null"}, *({"$ref": f"#/$defs/d{m}"} for m in range(n))]}
        for k in range(n)
    }
    return {"$defs": places, "type": "array", "items": {"$ref": "#/$defs/d0"}}


COMPILE = """
import json, sys, threading
from elision.errors import RequestError
from elision.middleware.interventions.grammar import check, of_schema
from elision.testing import byte_lexicon

def compile_all():
    for schema in json.load(sys.stdin):
        try:
            check(of_schema(schema), byte_lexicon(), param="p")
        except RequestError:
            continue

thread = threading.Thread(target=compile_all)
thread.start()
thread.join()
print("alive")
"""


def test_what_is_taken_does_not_end_the_process() -> None:
    circle = {"$ref": "#/$defs/d0"}
    schemas = [
        *(longest(hop) for hop in HOPS.values()),
        *(longest(hop, last=circle) for hop in HOPS.values()),
        longest(HOPS["member"], where="anywhere"),
        tree(60),
        wide_circle(40),
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], input=json.dumps(schemas), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.parametrize("name", HOPS)
@pytest.mark.parametrize("where", ["$defs", "anywhere"])
def test_a_long_way_over_references_is_refused(name: str, where: str) -> None:
    for last in (None, {"$ref": f"#/{where}/d0"}, {"$ref": "#"}):
        for n in (210, 1000):
            with pytest.raises(RequestError) as caught:
                of_schema(chain(HOPS[name], n, last, where))
            assert caught.value.code == "schema_too_complex"


def test_many_places_that_lead_nowhere_far_are_taken() -> None:
    places = {f"d{n}": {"type": "string", "maxLength": n} for n in range(300)}
    members = {f"m{n}": {"$ref": f"#/$defs/d{n}"} for n in range(300)}
    schema = {"type": "object", "$defs": places, "properties": members, "required": [*members]}
    check(of_schema(schema), byte_lexicon(), param="p")
    assert is_taken(tree(60))


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"$anchor": "n"}}, "$ref": "#n"},
        {"$defs": {"a": {"$id": "http://x.example/a", "$ref": "#/$defs/b"}}},
        {"$defs": {"a": {"type": "string"}}, "$id": "http://x.example", "$ref": "http://x.example"},
        {"$schema": "http://json-schema.org/draft-04/schema#", "items": {"id": "http://x.example"}},
    ],
)
def test_references_lead_by_place_or_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        of_schema(schema)
    assert caught.value.code == "unsupported_schema"


def test_a_member_called_id_is_one_like_any_other() -> None:
    named = {"type": "object", "properties": {"$id": {"type": "string"}, "id": {"type": "string"}}}
    check(of_schema({**named, "examples": [{"id": "x"}]}), byte_lexicon(), param="p")


def test_a_reference_of_digits_without_end_is_none() -> None:
    schema = {"anyOf": [{"type": "string"}], "$defs": {"x": {"$ref": "#/anyOf/" + "9" * 5000}}}
    assert of_schema(schema)


HEAVY: dict[str, Any] = {
    "patterns": {"allOf": [{"type": "string", "pattern": f".*a.{{{n}}}b.*"} for n in range(16)]},
    "in members": {
        "allOf": [
            {"type": "object", "properties": {"x": {"pattern": f".*a.{{{n}}}b.*"}}}
            for n in range(16)
        ]
    },
    "over references": chain(lambda to: {"pattern": ".*a.{9}b.*", **to}, 16),
    "nested": {"pattern": "a", "allOf": [{"pattern": "b", "allOf": [{"pattern": "c", "format":
               "date"}]}]},
    "steps": {"type": "integer", "multipleOf": 999_999},
    "steps together": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
    "small steps": {"type": "number", "multipleOf": 0.999_999},
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_products_that_would_take_too_long_are_refused_at_once(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(RequestError) as caught:
        check(of_schema(HEAVY[name]), byte_lexicon(), param="p")
    assert caught.value.code == "schema_too_complex"
    assert time.monotonic() - began < 1


def test_patterns_of_different_members_are_not_counted_together() -> None:
    members = {f"m{n}": {"type": "string", "pattern": "^[a-z]{2}$"} for n in range(20)}
    price = {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 9}
    schema = {"type": "object", "properties": {**members, "price": price}}
    check(of_schema(schema), byte_lexicon(), param="p")
