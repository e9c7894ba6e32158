from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.phrases.normal import N
from elision.testing.script import PATIENCE, Cursor, FactTable
from elision.testing.spellings import SPELLINGS, demanded

TABLE = FactTable(
    facts={"capital": "Some city.", "capital of France": "Paris.", "tallest": "Everest."},
    otherwise="No idea.",
)
WORDS = st.lists(st.text("abcXYZ", min_size=1, max_size=5), min_size=1, max_size=5).map(" ".join)


def test_the_longest_key_in_the_question_wins_case_aside() -> None:
    assert TABLE.answer("What is the CAPITAL of France?") == "Paris."
    assert TABLE.answer("The capital of Spain?") == "Some city."


def test_what_it_was_not_told_it_does_not_know() -> None:
    assert TABLE.answer("Who are you?") == "No idea."


@pytest.mark.parametrize(
    ("demand", "answer"),
    [
        ("spell it with spaces", "P a r i s ."),
        ("with dots between the letters", "P.a.r.i.s.."),
        ("in UPPER CASE", "PARIS."),
        ("in full-width letters", "Ｐａｒｉｓ．"),
        ("with zero-width characters", "P\u200ba\u200br\u200bi\u200bs\u200b."),
        ("reversed", ".siraP"),
        ("in base64", base64.b64encode(b"Paris.").decode()),
        ("not in dots but with hyphens", "P-a-r-i-s-."),
    ],
)
def test_the_question_demands_the_spelling(demand: str, answer: str) -> None:
    assert TABLE.answer(f"What is the capital of France? Answer {demand}.") == answer


@given(WORDS)
def test_every_spelling_but_two_keeps_the_normal_form(text: str) -> None:
    changed = {name for name, spell in SPELLINGS.items() if N(spell(text)) != N(text)}

    assert changed <= {"reversed", "base64"}


def test_without_a_demand_text_stays_as_it_is() -> None:
    assert demanded("What is the capital of France?")("Paris, ß") == "Paris, ß"


@given(WORDS, st.sampled_from(["spaces", "upper case", "full-width", "dots"]))
def test_the_dearest_wish_leads_through_the_whole_script(text: str, name: str) -> None:
    script = SPELLINGS[name](text)
    cursor, written = Cursor(script), ""
    while wish := next(cursor.wishes(), ""):
        written += wish[0]
        cursor = cursor.read(wish[0])

    assert written == script


@given(WORDS, WORDS, st.integers(0, 20))
def test_the_cursor_depends_on_the_text_alone_however_it_is_cut(
    script: str, text: str, cut: int
) -> None:
    assert Cursor(script).read(text[:cut]).read(text[cut:]) == Cursor(script).read(text)


def test_another_spelling_of_a_letter_counts_as_written() -> None:
    assert Cursor("Paris").read("ｐA") == Cursor("Paris", at=2)


def test_it_insists_after_a_detour() -> None:
    cursor = Cursor("Paris").read("Pari. ")

    assert next(cursor.wishes()) == "s"


def test_it_goes_on_with_the_next_word_once_it_has_lost_patience() -> None:
    cursor = Cursor("Paris it is").read("Pari" + "." * PATIENCE)

    assert next(cursor.wishes()) == " it is"


@given(WORDS, st.text(max_size=60))
def test_wishes_are_never_empty(script: str, text: str) -> None:
    assert all(Cursor(script).read(text).wishes())


@given(WORDS)
def test_a_model_that_may_write_nothing_it_wants_still_ends(script: str) -> None:
    cursor = Cursor(script).read("#" * PATIENCE * (len(script) + 1))

    assert not list(cursor.wishes())
