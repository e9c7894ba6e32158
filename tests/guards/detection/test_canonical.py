"""The canonical levels: laws over any text, parity with the obvious, spellings seen in attacks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.detection.canonical import L1, L2, L3, l3_symbols, typed
from elision.guards.phrases.normal import N

TRICKY = st.sampled_from("aAé\u0301\u200b\u00ad .-'ßŒﬁİıЅΝ①🅰🇦٣ʼ™가ﷺ東4@$!(lL0\b\x1f\ud800😀\n\t")
TEXTS = st.text(st.one_of(TRICKY, st.characters()), max_size=24)


def naively_typed(text: str) -> str:
    while (at := text.find("\b")) >= 0:
        text = text[: max(0, at - 1)] + text[at + 1 :]
    return text


@given(TEXTS)
def test_backspaces_take_what_stands_before_them(text: str) -> None:
    shown, kept = typed(text)
    assert shown == naively_typed(text)
    assert kept is None or shown == "".join(text[at] for at in kept)


@given(TEXTS)
def test_letters_are_those_of_the_normal_form(text: str) -> None:
    assert L2(text) == N(naively_typed(text))
    assert N(L1(text)) == L2(text)


@given(TEXTS)
def test_a_level_is_its_own_level(text: str) -> None:
    for level in (L1, L2, L3):
        assert level(level(text)) == level(text)


@given(TEXTS)
def test_case_width_and_accents_do_not_count(text: str) -> None:
    shown = naively_typed(text)
    for level in (L1, L2, L3):
        assert level(shown.casefold()) == level(shown)
        assert level("\u0301\u200b".join(shown)) == level(shown)


@given(TEXTS)
def test_no_letter_of_l3_follows_itself_and_each_knows_where_it_comes_from(text: str) -> None:
    shown = naively_typed(text)
    pairs = [*l3_symbols(shown)]
    assert "".join(symbol for symbol, _ in pairs) == L3(text)
    assert all(symbol in L3(shown[at]) for symbol, at in pairs)
    assert [at for _, at in pairs] == sorted(at for _, at in pairs)
    assert not re.search(r"(.)\1", L3(text), re.DOTALL)


@pytest.mark.parametrize(
    ("raw", "skeleton"),
    [
        ("Hsiao\u3000 \n Yun-Hwa", "hsiao yun-hwa"),
        ("Ｈｓｉａｏ　Ｙｕｎ－Ｈｗａ", "hsiao yun-hwa"),
        ("НѕіаоX\b Yun-Hwa", "hsiao yun-hwa"),
        ("🅷🆂🅸🅰🅾 \u202eYun\u202c-Hẃȧ", "hsiao yun-hwa"),
    ],
)
def test_the_skeleton_keeps_words_and_signs(raw: str, skeleton: str) -> None:
    assert L1(raw) == skeleton


@pytest.mark.parametrize("raw", ["H514o Yun-Hw4", "Hs!@0 Yuun-Hwwwa"])
def test_digits_and_signs_for_letters_come_to_the_letters_at_l3(raw: str) -> None:
    assert L3(raw) == L3("Hsiao Yun-Hwa")
    assert L2(raw) != L2("Hsiao Yun-Hwa")


def test_what_one_sign_stands_for_is_one_letter_on_both_sides() -> None:
    assert L3("Ji11ian 8el1") == L3("Jillian Bell") == "jianbei"
