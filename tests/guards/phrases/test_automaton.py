"""The automaton finds what a search for every pattern finds, and no more."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from elision.guards.phrases.automaton import ROOT, Automaton
from elision.guards.phrases.normal import SEP

WORDS = st.text("ab", min_size=1, max_size=5)
PATTERNS = st.lists(WORDS, min_size=1, max_size=8)
BOUNDED = st.lists(st.builds(lambda a, b: SEP + a + b, WORDS, st.sampled_from(["", SEP + "a"])))


def ends(patterns: list[str], text: str) -> set[tuple[int, int]]:
    """Return (pattern, end) of every occurrence, by looking everywhere."""
    return {
        (index, at + len(pattern))
        for index, pattern in enumerate(patterns)
        for at in range(len(text))
        if text.startswith(pattern, at)
    }


def collapsed(text: str) -> str:
    return re.sub(f"{SEP}+", SEP, text)


@given(PATTERNS, st.text("abc", max_size=30))
def test_every_end_of_every_pattern_is_found(patterns: list[str], text: str) -> None:
    automaton, state, found = Automaton(patterns), ROOT, set()
    for at, symbol in enumerate(text, start=1):
        state = automaton.step(state, symbol)
        outputs = list(automaton.outputs(state))
        assert automaton.matches(state) == bool(outputs)
        lengths = [len(patterns[index]) for index in outputs]
        assert lengths == sorted(lengths, reverse=True)
        found |= {(index, at) for index in outputs}
    assert found == ends(patterns, text)


@given(PATTERNS, st.text("abc", max_size=30))
def test_a_state_stands_for_the_longest_end_that_begins_a_pattern(
    patterns: list[str], text: str
) -> None:
    automaton = Automaton(patterns)
    state = automaton.read(ROOT, text)
    tails = [
        n
        for n in range(len(text) + 1)
        if any(p.startswith(text[len(text) - n :]) for p in patterns)
    ]
    assert automaton.depth(state) == max(tails)


@given(PATTERNS, st.text("abc", max_size=30))
def test_what_may_grow_is_the_longest_end_that_is_not_a_whole_pattern_yet(
    patterns: list[str], text: str
) -> None:
    automaton = Automaton(patterns)
    ends = [text[at:] for at in range(len(text) + 1)]
    growing = [end for end in ends if any(p.startswith(end) and p != end for p in patterns)]
    assert automaton.growing(automaton.read(ROOT, text)) == max(map(len, growing))


@given(BOUNDED, st.lists(st.text(["a", "b", SEP], max_size=4), max_size=6))
def test_pieces_read_like_the_whole_with_its_separators_collapsed(
    patterns: list[str], pieces: list[str]
) -> None:
    automaton, state = Automaton(patterns), ROOT
    for piece in pieces:
        state = automaton.read(state, collapsed(piece))
    assert state == automaton.read(ROOT, collapsed("".join(pieces)))


@given(PATTERNS)
def test_the_path_of_a_pattern_passes_its_prefixes(patterns: list[str]) -> None:
    automaton = Automaton(patterns)
    for pattern in patterns:
        path = automaton.path(pattern)
        assert [automaton.depth(state) for state in path] == list(range(len(pattern) + 1))
        assert path[-1] == automaton.read(ROOT, pattern)


@given(PATTERNS, st.text("ab", max_size=12), st.sets(st.integers(1, 12)))
def test_the_nearest_marked_state_is_the_first_on_the_failure_chain(
    patterns: list[str], text: str, marked: set[int]
) -> None:
    automaton = Automaton(patterns)
    state = automaton.read(ROOT, text)
    nearest = automaton.nearest(marked)[state]
    while state and state not in marked:
        state = automaton.failure(state)
    assert nearest == state


def test_ten_thousand_phrases_compile_well_within_a_second_and_a_half() -> None:
    patterns = [f"{n:05d}{n * 7919 % 99991:05d}phrases" for n in range(10_000)]
    began = time.process_time()
    automaton = Automaton(patterns)
    assert time.process_time() - began < 1.5
    assert len(automaton) > 100_000
