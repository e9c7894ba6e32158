"""Supplied traffic, replayed: rates that can be counted by hand, intervals by their definition."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import RequestError
from elision.guards.evidence.impact import Line, lines_of, replay
from elision.guards.evidence.rates import Z_95, Rate
from elision.guards.targets import ForgetTarget, Phrase

CANARY = "zanzibar-7731"


def target(
    id_: str, *phrases: str, action: Any = "restrict", state: Any = "active"
) -> ForgetTarget:
    given_ = tuple(Phrase(text=phrase) for phrase in phrases)
    return ForgetTarget(id=id_, title="t", phrases=given_, action=action, state=state)


@given(st.integers(0, 400), st.integers(0, 400))
def test_an_interval_holds_the_share_and_lies_within_one(hits: int, misses: int) -> None:
    rate = Rate(hits, hits + misses)
    low, high = rate.interval
    assert 0 <= low <= rate.share <= high <= 1


@given(st.integers(0, 400), st.integers(0, 400))
def test_at_the_ends_of_an_interval_the_share_is_just_not_surprising(
    hits: int, misses: int
) -> None:
    rate = Rate(hits, hits + misses)
    for end in rate.interval if rate.n else ():
        deviation = sqrt(end * (1 - end) / rate.n)
        assert abs(rate.share - end) == pytest.approx(Z_95 * deviation, abs=1e-9)


def test_an_interval_is_that_of_the_books() -> None:
    assert Rate(5, 10).interval == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert Rate(0, 10).interval == pytest.approx((0.0, 0.277533), abs=1e-6)


def test_nothing_tells_nothing() -> None:
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert Rate(0, 0).share == 0.0


def test_rates_are_those_counted_by_hand() -> None:
    lines = [
        Line(text="Where is Rosebud Lane?", about=True),
        Line(text="The lane of roses", about=True),
        Line(text="Rosebud Lane, and Rosebud Lane again"),
        Line(text="Xanadu Road"),
        *[Line(text=f"Line {n} of ordinary traffic") for n in range(6)],
    ]
    targets = [target("a", "Rosebud Lane"), target("b", "Xanadu Road", action="observe")]
    found = replay(targets, lines)
    assert (found.false_positives.hits, found.false_positives.n) == (2, 8)
    assert (found.caught.hits, found.caught.n) == (1, 2)
    assert found.by_target == {"a": (3, 2), "b": (1, 1)}
    body = found.to_body()
    assert body["n_lines"] == 10
    assert 0 < body["added_ms"]["p50"] <= body["added_ms"]["p95"]


def test_a_target_is_tried_whatever_its_state() -> None:
    found = replay([target("a", "Rosebud Lane", state="draft")], [Line(text="Rosebud Lane")])
    assert found.by_target == {"a": (1, 1)}


def test_no_lines_are_no_error() -> None:
    body = replay([target("a", "Rosebud Lane")], []).to_body()
    assert body["n_lines"] == 0
    assert body["added_ms"] == {"p50": 0.0, "p95": 0.0}


def test_lines_are_texts_or_objects_with_a_text_or_with_messages() -> None:
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    lines = lines_of(["a", {"text": "b", "about": True}, {"messages": said}], "lines")
    assert [(line.text, line.about) for line in lines] == [
        ("a", False), ("b", True), ("one\ntwo", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (CANARY, "lines"),
        ([CANARY, 3], "lines[1]"),
        ([{"txt": CANARY}], "lines[0]"),
        ([{"text": [CANARY]}], "lines[0]"),
        ([{"text": CANARY, "about": CANARY}], "lines[0].about"),
    ],
)
def test_what_is_no_line_is_refused_by_its_place(body: object, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        lines_of(body, "lines")
    assert refused.value.param == param
    assert CANARY not in str(refused.value)
