"""The indices against going through all forms one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from elision.guards.detection.form_index import FormIndex, WordIndex

FORMS = st.lists(st.text("ab", min_size=1, max_size=10), max_size=12)


@given(FORMS, st.text("ab", max_size=30))
def test_every_form_is_found_wherever_it_stands(forms: list[str], text: str) -> None:
    found = sorted(FormIndex(zip(forms, range(len(forms)), strict=True)).find(text))
    slow = [
        (at, at + len(form), index)
        for index, form in enumerate(forms)
        for at in range(len(text))
        if text.startswith(form, at)
    ]
    assert found == sorted(slow)


@given(FORMS, st.text("ab", max_size=30), st.sets(st.integers(0, 29)))
def test_only_the_places_given_count(forms: list[str], text: str, places: set[int]) -> None:
    index = FormIndex(zip(forms, range(len(forms)), strict=True))
    slow = [found for found in index.find(text) if found[0] in places]
    assert sorted(index.find(text, places)) == sorted(slow)


@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), max_size=6),
    st.lists(st.sampled_from("ab"), max_size=12),
)
def test_every_sequence_of_words_is_found(entries: list[tuple[str, ...]], keys: list[str]) -> None:
    found = sorted(WordIndex((entry, entry) for entry in entries).find(keys))
    slow = [
        (at, at + len(entry), entry)
        for entry in entries
        for at in range(len(keys))
        if tuple(keys[at : at + len(entry)]) == entry
    ]
    assert found == sorted(slow)
