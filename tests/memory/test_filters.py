"""Filters: what a slow and obvious evaluator says of any JSON, they say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import RequestError
from elision.memory.filters import MISSING, MOST_CHOICES, MOST_CONDITIONS, parse, reached, token

NAMES = st.sampled_from(["a", "b", "a.b", "c"])
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 2, -0.5, "", "a", "b", "1"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3)
)
VALUES = st.dictionaries(NAMES, JSON, max_size=4)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), JSON),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(JSON, max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
).map(lambda pair: {pair[0]: pair[1]})
WHERE = st.dictionaries(
    NAMES,
    st.recursive(SCALARS | OPERATIONS, lambda inner: st.dictionaries(NAMES, inner, max_size=2)),
    max_size=3,
)


def same(left, right):
    """Equality of JSON, written out; a dictionary's order does not matter, 1 is 1.0, not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return (type(left) in (int, float) and type(right) in (int, float) and left == right) or (
        type(left) is type(right) and not isinstance(left, int | float) and left == right
    )  # fmt: skip


def ordered(left, right):
    number = all(type(one) in (int, float) for one in (left, right))
    return number or all(isinstance(one, str) for one in (left, right))


def looked_up(value, name):
    """Return [what is there], or []."""
    if not isinstance(value, dict):
        return []
    if name in value:
        return [value[name]]
    if name == "a.b":
        inner = value.get("a")
        return [inner["b"]] if isinstance(inner, dict) and "b" in inner else []
    return []


def meets(found, operator, operand):
    value = found[0] if found else None
    match operator:
        case "$eq":
            return same(value, operand)
        case "$ne":
            return not same(value, operand)
        case "$in":
            return any(same(value, one) for one in operand)
        case "$nin":
            return not any(same(value, one) for one in operand)
        case "$exists":
            return bool(found) == operand
    if not ordered(value, operand):
        return False
    return {"$gt": value > operand, "$gte": value >= operand, "$lt": value < operand,
            "$lte": value <= operand}[operator]  # fmt: skip


def obvious(where, value):
    """Evaluate *where* by walking it beside *value*."""
    for name, wanted in where.items():
        found = looked_up(value, name)
        if isinstance(wanted, dict) and any(key.startswith("$") for key in wanted):
            if not all(meets(found, key, operand) for key, operand in wanted.items()):
                return False
        elif isinstance(wanted, dict):
            if not found or not isinstance(found[0], dict) or not obvious(wanted, found[0]):
                return False
        elif not meets(found, "$eq", wanted):
            return False
    return True


@given(WHERE, st.lists(VALUES, min_size=1, max_size=8))
def test_a_filter_says_what_the_obvious_evaluator_says(where, values):
    parsed = parse(where)
    assert [parsed.holds(value) for value in values] == [obvious(where, one) for one in values]


@given(JSON, JSON)
def test_tokens_are_equal_where_the_values_are(left, right):
    assert (token(left) == token(right)) == same(left, right)
    assert token(left) == token(json.loads(json.dumps(left)))


@given(VALUES)
def test_a_record_meets_what_it_holds_itself_and_the_empty_filter(value):
    assert parse({}).holds(value)
    assert parse({name: {"$eq": one} for name, one in value.items()}).holds(value)


@pytest.mark.parametrize(
    ("where", "value", "held"),
    [
        ({"size": {"$gte": 2, "$lt": 9}}, {"size": 2}, True),
        ({"size": {"$gte": 2, "$lt": 9}}, {"size": 9}, False),
        ({"maker.country": "DE"}, {"maker": {"country": "DE", "city": "Ulm"}}, True),
        ({"maker": {"country": "DE"}}, {"maker": {"country": "DE", "city": "Ulm"}}, True),
        ({"maker": {"$eq": {"country": "DE"}}}, {"maker": {"country": "DE", "x": 1}}, False),
        ({"a.b": 1}, {"a.b": 1, "a": {"b": 2}}, True),
        ({"colour": None}, {}, True),
        ({"colour": {"$exists": True}}, {"colour": None}, True),
        ({"colour": {"$exists": False}}, {"colour": None}, False),
        ({"flag": 1}, {"flag": True}, False),
        ({"flag": 1.0}, {"flag": 1}, True),
        ({"size": {"$gt": 1}}, {"size": "2"}, False),
        ({"size": {"$gt": "1"}}, {"size": "2"}, True),
        ({"size": {"$gt": 0}}, {"size": True}, False),
        ({"tags": ["a", 1]}, {"tags": ["a", 1.0]}, True),
        ({"x": ["truth", 1]}, {"x": True}, False),
        ({"maker": {}}, {"maker": 3}, False),
    ],
)
def test_examples(where, value, held):
    assert parse(where).holds(value) is held


@pytest.mark.parametrize(
    "where",
    [
        {"a": {"$regex": "x"}},
        {"a": {"$object": True}},
        {"a": {"$gt": 1, "b": 2}},
        {"$and": []},
        {"a": {"$in": "text"}},
        {"a": {"$in": 3}},
        {"a": {"$exists": 1}},
        {"a": float("nan")},
        {"a": object()},
        {"a": {"$eq": {1: 2}}},
        {1: 2},
        [],
        {"a": {"$in": list(range(MOST_CHOICES + 1))}},
        {str(n): n for n in range(MOST_CONDITIONS + 1)},
    ],
)
def test_what_is_no_filter_is_refused_and_not_repeated(where):
    with pytest.raises(RequestError) as caught:
        parse(where)
    assert (caught.value.param, caught.value.code) == ("where", "invalid_filter")
    assert "text" not in str(caught.value)
    assert "regex" not in str(caught.value)


def test_a_filter_without_end_is_refused():
    deep = where = {}
    for _ in range(5000):
        deep["a"] = deep = {}
    listed = one = []
    for _ in range(5000):
        one.append(one := [])
    for endless in (where, {"a": listed}, {"a": {"$in": [listed]}}):
        with pytest.raises(RequestError, match="deeper"):
            parse(endless)


def test_a_filter_shows_nothing_of_what_it_compares_with():
    assert "secret" not in repr(parse({"secret": "secret"}))


def test_nothing_is_reached_through_what_is_no_mapping():
    assert reached({"a": [{"b": 1}]}, ("a.b",)) is MISSING
    assert reached({"a": [{"b": 1}]}, ("a", "b")) is MISSING
