"""Predicates: what holds of a task's facts, and what is no predicate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.memory.learning.cues import Cue
from elision.memory.learning.predicates import Facts


def fires(pattern: str, facts: Facts) -> bool:
    return Cue(type="predicate", pattern=pattern).matches("", facts)


FACTS: Facts = {"risk": "high", "n_rows": 12, "urgent": True, "dry": False, "tool.name": "sql"}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("urgent", True),
        ("dry", False),
        ("NOT dry", True),
        ("urgent AND dry", False),
        ("urgent or dry and dry", True),
        ("(urgent OR dry) AND dry", False),
        ("NOT (urgent AND dry)", True),
        ("risk == 'high'", True),
        ('risk != "low"', True),
        ("n_rows >= 12 AND n_rows < 12.5", True),
        ("n_rows > 1.2e1", False),
        ("n_rows > -3", True),
        ("risk in ['low', 'high']", True),
        ("n_rows in [1, 12]", True),
        ("urgent == true", True),
        ("dry == FALSE", True),
        ("urgent == 1", False),
        ("urgent in [1]", False),
        ("n_rows == '12'", False),
        ("n_rows != '12'", True),
        ("risk > 3", False),
        ("risk < 'low'", True),
        ("tool.name == 'sql'", True),
        (r"risk != 'a\'b\\'", True),
        ("missing", False),
        ("missing != 3", False),
        ("NOT missing", True),
    ],
)
def test_predicates_by_example(pattern: str, found: bool) -> None:
    assert fires(pattern, FACTS) is found


@pytest.mark.parametrize(
    "pattern",
    [
        *("a AND", "AND a", "a b", "(a", "a)", "a ==", "a == b", "a in 'x'", "a in []", "a in [1"),
        *("== 3", "3 == a", "a = 3", "a === 3", "a == 'x", "not not a", "a == 1e999", "a == 1.2.3"),
        *("a; b", "a == 3x", "true", "f(a)", "__import__('os')", "a\x00"),
    ],
)
def test_what_is_no_predicate_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="predicate"):
        Cue(type="predicate", pattern=pattern)


names = st.sampled_from(["aa", "bb", "cc"])
numbers = st.integers(-2, 2).map(str)
comparisons = st.builds(
    "{} {} {}".format, names, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers
)
memberships = st.builds("{} in [{}, {}]".format, names, numbers, numbers)
trees = st.recursive(
    names | comparisons | memberships,
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not ({})".format, inner)
        | st.builds("({} or {} and {})".format, inner, inner, inner)
    ),
    max_leaves=5,
)


@given(trees, st.fixed_dictionaries(dict.fromkeys(["aa", "bb", "cc"], st.integers(-2, 2))))
def test_a_predicate_means_what_the_same_python_means(pattern: str, facts: dict[str, Any]) -> None:
    assume(len(pattern) <= 150)
    assert fires(pattern, facts) == bool(eval(pattern, {}, dict(facts)))


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=3), st.booleans()))
def test_a_predicate_is_refused_or_answers_and_never_breaks(pattern: str, facts: Facts) -> None:
    try:
        cue = Cue(type="predicate", pattern=pattern)
    except ConfigError:
        return
    assert cue.matches("", facts) in {True, False}


def test_unknown_names_are_counted_once_each() -> None:
    cue = Cue(type="predicate", pattern="risk == 'low' AND (x OR y > 3 OR x) OR urgent")
    assert cue.n_unknown(FACTS) == 2
    assert Cue(type="keyword", pattern="x").n_unknown(FACTS) == 0
