"""Phrases turned instead of texts: rotations by differences, orders, romanisation."""

from __future__ import annotations

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.detection.turned import (
    differences,
    opposite,
    orders,
    pig_latin,
    romanised,
    rotation,
)
from elision.guards.phrases.normal import N

LETTERS = st.text(ascii_lowercase + "4é東", max_size=20)
WORDS = st.text(ascii_lowercase, min_size=2, max_size=20)


def rotated(text: str, steps: int) -> str:
    table = str.maketrans(ascii_lowercase, ascii_lowercase[steps:] + ascii_lowercase[:steps])
    return text.translate(table)


def mirrored(text: str) -> str:
    return text.translate(str.maketrans(ascii_lowercase, ascii_lowercase[::-1]))


@given(LETTERS, st.integers(0, 25))
def test_a_rotation_leaves_the_differences_alone(letters: str, steps: int) -> None:
    assert differences(rotated(letters, steps)) == differences(letters)


@given(LETTERS)
def test_atbash_turns_every_difference_into_its_opposite(letters: str) -> None:
    assert differences(mirrored(letters)) == opposite(differences(letters))


@given(WORDS, WORDS)
def test_equal_differences_mean_a_rotation(one: str, other: str) -> None:
    turned = any(rotated(one, steps) == other for steps in range(26))
    assert (differences(one) == differences(other)) == (turned and len(one) == len(other))


@given(WORDS, st.integers(0, 25))
def test_the_rotation_is_told_from_before_and_after(word: str, steps: int) -> None:
    assert rotation(word, rotated(word, steps)) == (steps, False)
    found, is_mirrored = rotation(word, rotated(mirrored(word), steps))
    again = rotated(mirrored(word) if is_mirrored else word, found)
    assert again == rotated(mirrored(word), steps)


def test_what_has_no_letters_is_not_turned() -> None:
    assert rotation("20771", "20771") == (0, False)


def test_orders_are_named() -> None:
    assert set(orders("Hsiao Yun-Hwa")) == {
        ("reversed", "awhnuyoaish"),
        ("words reversed", "oaishawhnuy"),
        ("words reversed", "oaishnuyawh"),
        ("order reversed", "yunhwahsiao"),
        ("order reversed", "hwayunhsiao"),
    }


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Jürgen Müller", ["juergen mueller"]),
        ("Чайковский", ["chaikovskii"]),
        ("Σαπφώ", ["sapfo"]),
        ("Rosalind Élie", []),
    ],
)
def test_names_are_romanised_where_accents_are_not_all(text: str, written: list[str]) -> None:
    assert [N(alias) for alias in romanised(text)] == [N(alias) for alias in written]


def test_pig_latin_knows_its_conventions() -> None:
    keys = {key[0] for key in pig_latin(["abilov"])}
    assert keys == {"".join(sorted("abilov" + link)) for link in ("", "w", "y", "h")}
