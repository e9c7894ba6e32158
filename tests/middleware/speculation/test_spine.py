"""The spine finds what an exhaustive search finds, whatever was taken back in between."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation import spine as module
from elision.middleware.speculation.spine import LONGEST, Spine, Successor

EVERYWHERE = 10_000

texts = st.lists(st.integers(0, 3), max_size=40)


def searched(text: list[int], context: list[int]) -> list[Successor]:
    """Look at every place of *text*; the slow obvious way."""
    found: dict[int, list[tuple[int, int]]] = {}
    for place in range(len(text) - 1):
        length = 0
        while (
            length < min(len(context), place + 1, LONGEST)
            and text[place - length] == context[-1 - length]
        ):
            length += 1
        if length:
            found.setdefault(text[place + 1], []).append((length, place))
    best = sorted(found.items(), key=lambda item: max(item[1]), reverse=True)
    return [Successor(token, max(places)[0], len(places)) for token, places in best]


@given(prompt=texts, reply=texts, supposed=texts)
def test_successors_are_those_of_an_exhaustive_search(
    prompt: list[int], reply: list[int], supposed: list[int]
) -> None:
    spine = Spine(prompt)
    spine.follow(reply)
    context = [*spine.context(LONGEST), *supposed][-LONGEST:]
    assert spine.successors(context, most=EVERYWHERE) == searched([*prompt, *reply], context)


@given(prompt=texts, replies=st.lists(texts, max_size=6))
def test_a_rewound_spine_is_that_of_the_text_as_it_stands(
    prompt: list[int], replies: list[list[int]]
) -> None:
    spine, fresh = Spine(prompt), Spine(prompt)
    for reply in replies:
        spine.follow(reply)
    last = replies[-1] if replies else []
    fresh.follow(last)
    context = fresh.context(LONGEST)
    assert spine.context(LONGEST) == context == [*prompt, *last][-LONGEST:]
    for most in (1, 3, EVERYWHERE):
        assert spine.successors(context, most=most) == fresh.successors(context, most=most)


def test_only_so_many_places_are_looked_at_and_the_longest_match_is_among_them() -> None:
    spine = Spine([7, 8, 9, 5, *[9, 4] * 50, 7, 8, 9])
    found = spine.successors([7, 8, 9], most=3)
    assert found[0] == Successor(5, 3, 1)
    assert sum(successor.n_seen for successor in found) <= 3


def test_different_continuations_come_the_longest_match_first_then_the_latest() -> None:
    spine = Spine([1, 2, 3, 9, 9, 2, 4, 0, 2, 6, 0, 1, 2])
    assert [s.token for s in spine.successors([1, 2], most=9)] == [3, 6, 4]


def test_an_empty_text_is_followed_by_nothing() -> None:
    assert Spine(()).successors([1, 2], most=9) == []
    assert Spine((1, 2)).successors([], most=9) == []


@given(prompt=texts, reply=st.lists(st.integers(0, 3), min_size=50, max_size=90), n=st.integers(0))
def test_memory_is_bounded_and_a_rewind_out_of_the_window_still_holds(
    prompt: list[int], reply: list[int], n: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", 8)
        spine = Spine(prompt)
        for end in range(1, len(reply) + 1):
            spine.follow(reply[:end])
            assert len(spine._text) <= 16
        text = [*prompt, *reply[: n % 50]]
        spine.follow(reply[: n % 50])
        assert spine.context(4) == text[-4:][-len(spine._text) :]
        assert spine.context(EVERYWHERE) == text[len(text) - len(spine._text) :]


def test_it_neither_shows_nor_persists_the_text() -> None:
    spine = Spine((4711, 4712))
    assert "471" not in repr(spine)
    with pytest.raises(TypeError):
        pickle.dumps(spine)
