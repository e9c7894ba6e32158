from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import RequestError
from elision.middleware.agentic.wanted import Wanted, wanted_of

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(["learning", "lane", "namespace", "tags", "facts", "subjects", "lan"])


@given(JSON | st.dictionaries(FIELDS, JSON, max_size=4))
def test_whatever_stands_there_is_read_or_refused_by_name(value: Any) -> None:
    try:
        read: Wanted | str = wanted_of(value)
    except RequestError as exc:
        read = str(exc.param)
    assert isinstance(read, Wanted) or read.startswith("elision.memory")


def test_nothing_said_is_nothing_wanted() -> None:
    assert wanted_of(None) == wanted_of({}) == Wanted()


def test_everything_that_can_be_said() -> None:
    said = {
        "learning": "frozen", "lane": "coach", "namespace": ["desk", "mail"], "tags": ["billing"],
        "facts": {"region": "EU", "tier": 2, "urgent": True}, "subjects": ["u-17"],
    }  # fmt: skip
    assert wanted_of(said) == Wanted(
        learning="frozen", lane="coach", namespace=("desk", "mail"), tags=frozenset({"billing"}),
        facts={"region": "EU", "tier": 2, "urgent": True}, subjects=frozenset({"u-17"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"lane": "fast"}, "elision.memory.lane"),
        ({"learning": True}, "elision.memory.learning"),
        ({"namespace": ["a", ""]}, "elision.memory.namespace[1]"),
        ({"namespace": ["a\n"]}, "elision.memory.namespace"),
        ({"tags": "billing"}, "elision.memory.tags"),
        ({"facts": {"a": [1]}}, "elision.memory.facts"),
        ({"mode": "on"}, "elision.memory"),
    ],
)
def test_a_misspelt_wish_is_refused_by_its_field(said: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        wanted_of(said)
    assert caught.value.param == param


def test_an_error_repeats_nothing_of_what_was_sent() -> None:
    secret = "Zyxwv Qponm"
    said = json.loads(json.dumps({"tags": [secret], "facts": {secret: [secret]}}))
    with pytest.raises(RequestError) as caught:
        wanted_of(said)
    assert secret not in str(caught.value)
