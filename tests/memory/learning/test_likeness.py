"""Repetition and contradiction: the same whoever comes first, and never both at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import Entry
from elision.memory.learning.likeness import contradicts, is_negative, parties, repeats
from elision.memory.learning.states import State
from elision.memory.records import Scope, Trust

CUES = [
    Cue(type="keyword", pattern="late fee"),
    Cue(type="keyword", pattern="Late  Fee"),
    Cue(type="keyword", pattern="refund"),
    Cue(type="semantic", pattern="money owed"),
    Cue(type="semantic", pattern="a debt"),
]
ANGLES = (0.0, 0.1, 0.4, 0.6, 1.2)
"""Cosines 0.995 and 0.92 to 0.82 and below."""


def entry(name: str = "m_1", *, angle: float | None = 0.0, **given: Any) -> Entry:
    vector = None if angle is None else np.asarray([np.cos(angle), np.sin(angle)], np.float32)
    told = {
        "imperative": "query the ledger",
        "cue": CUES[0],
        "id": name,
        "scope": Scope("t"),
        "state": State.ACTIVE,
        "trust": Trust.USER,
        "version": 1,
        "created_at": 0.0,
        "updated_at": 0.0,
        "vector": vector,
        **given,
    }
    return Entry(**told)


entries = st.builds(
    entry,
    st.text("abc", min_size=1, max_size=3),
    angle=st.sampled_from([None, *ANGLES]),
    cue=st.sampled_from(CUES),
    handle=st.sampled_from([None, "sql", "mail"]),
    imperative=st.sampled_from(["query the ledger", "do not query the ledger", "never skip it"]),
    audience=st.sampled_from(["student", "teacher"]),
)


@pytest.mark.parametrize(
    ("imperative", "negative"),
    [
        ("Query the ledger", False),
        ("Do NOT query the ledger", True),
        ("never query", True),
        ("don't query", True),
        ("don\u2019t query", True),
        ("never skip the query", False),
        ("avoid queries without a limit", False),
        ("note the knot", False),
    ],
)
def test_an_odd_number_of_negations_says_not_to(imperative: str, negative: bool) -> None:
    assert is_negative(imperative) is negative


@given(entries, entries)
def test_contradiction_is_mutual_and_no_repetition(one: Entry, other: Entry) -> None:
    assert contradicts(one, other) is contradicts(other, one)
    assert not contradicts(one, one)
    assert not (contradicts(one, other) and repeats(one, one.vector, other))


@given(entries)
def test_an_entry_repeats_itself(one: Entry) -> None:
    assert repeats(one, one.vector, one)


@given(st.lists(entries, max_size=7, unique_by=lambda e: e.id), st.randoms())
def test_parties_divide_the_entries_and_no_contradiction_crosses_them(
    given_entries: list[Entry], random: Any
) -> None:
    found = parties(given_entries)
    assert sorted(e.id for party in found for e in party) == sorted(e.id for e in given_entries)
    place = {e.id: n for n, party in enumerate(found) for e in party}
    for one in given_entries:
        for other in given_entries:
            assert place[one.id] == place[other.id] or not contradicts(one, other)
    for party in found:
        reached, waiting = {party[0].id}, [party[0]]
        while waiting:
            here = waiting.pop()
            new = [e for e in party if e.id not in reached and contradicts(here, e)]
            reached |= {e.id for e in new}
            waiting += new
        assert reached == {e.id for e in party}
    random.shuffle(given_entries)
    assert [[e.id for e in p] for p in parties(given_entries)] == [[e.id for e in p] for p in found]


@pytest.mark.parametrize(
    ("changed", "against"),
    [
        ({"imperative": "do not query the ledger"}, True),
        ({"handle": "mail"}, True),
        ({"handle": "mail", "imperative": "do not mail it"}, False),
        ({"handle": None, "imperative": "do not query"}, True),
        ({"handle": None}, False),
        ({"imperative": "do not query", "angle": 0.6}, False),
        ({"imperative": "do not query", "angle": None}, False),
        ({"imperative": "do not query", "cue": CUES[1]}, True),
        ({"imperative": "do not query", "cue": CUES[2]}, False),
        ({"imperative": "do not query", "audience": "judge"}, False),
    ],
)
def test_two_contradict_if_they_differ_in_tool_or_polarity_about_one_matter(
    changed: dict[str, Any], against: bool
) -> None:
    assert contradicts(entry(handle="sql"), entry("m_2", **{"handle": "sql", **changed})) is against


def test_freely_worded_cues_are_one_matter_if_the_vectors_say_so() -> None:
    one = entry(cue=CUES[3])
    assert contradicts(one, entry("m_2", cue=CUES[4], imperative="do not query", angle=0.4))
    assert not contradicts(one, entry("m_2", cue=CUES[4], imperative="do not query", angle=0.6))


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"angle": 0.1}, True),
        ({"angle": 0.4}, True),
        ({"angle": 0.6}, False),
        ({"handle": "mail"}, False),
        ({"audience": "judge"}, False),
        ({"imperative": "do not query the ledger"}, False),
        ({"angle": None}, True),
        ({"angle": None, "imperative": "QUERY  the ledger"}, True),
        ({"angle": None, "imperative": "query the ledgers"}, False),
    ],
)
def test_a_repetition_has_the_same_tool_and_polarity_and_nearly_the_same_words(
    changed: dict[str, Any], same: bool
) -> None:
    older = entry(handle="sql")
    newer = entry("m_2", **{"handle": "sql", **changed})
    assert repeats(newer, newer.vector, older) is same
