"""N and N_b: laws over any text, parity with the textbook formula, spellings seen in attacks."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.phrases.confusables import CONFUSABLES
from elision.guards.phrases.normal import (
    SEP,
    N,
    N_b,
    aligned,
    ends_inside,
    fold,
    word_starts,
    words_apart,
)

TRICKY = st.sampled_from(
    "aAé\u0301\u200b\u00ad .-'ßŒﬁ½İıАаΝνＨ①🅰🇦❶٣ʼ™가각한ᄀ\ufdfa東ー\ue000\ud800😀\x1f"
)
TEXTS = st.text(st.one_of(TRICKY, st.characters()), max_size=24)

# Where this project goes beyond the formula: enclosed letters, marks drawn like punctuation, the
# Arabic line filler, what decomposes to these, and the mark that case-folds to a letter.
BEYOND = {
    *range(0x1F130, 0x1F18A),
    *range(0x1F1E6, 0x1F200),
    *map(ord, "ʹʺʻʼʽʾʿˈˊˋˮꞌꞋǃ™℠ŉ"),
    *(0x0374, 0x0640, 0x1E9A),
    *(0xFCF2, 0xFCF3, 0xFCF4, 0xFE71, 0xFE77, 0xFE79, 0xFE7B, 0xFE7D, 0xFE7F),
    *(
        code
        for code in range(0x345, 0x2000)
        if "\u0345" in unicodedata.normalize("NFKD", chr(code))
    ),
}
# UTS 39 intentional.txt 17.0.0 (© Unicode, Inc., terms of use at unicode.org), as code points;
# left out are two pairs of a digit and a punctuation mark, which no normal form should merge.
INTENTIONAL = """
    21 1C3 41 391 42 392 43 421 45 395 48 397 49 399 4A 408 4B 39A 4D 39C 4E 39D 4F 39F 50 3A1
    53 405 54 3A4 58 3A7 59 3A5 5A 396 61 430 63 441 64 501 65 435 68 4BB 69 456 6A 3F3 6F 3BF
    70 440 73 455 78 445 79 443 C6 4D4 D0 110 E6 4D5 138 43A 182 411 18F 4D8 19F 4E8 1A9 3A3 1DD
    259 245 39B 259 4D9 25B 3B5 269 3B9 275 4E9 292 4E1 299 432 29C 43D 393 413 3A0 41F 3B1 237A
    3B9 2373 3C1 2374 3C9 2375 433 1D26 43B 1D2B 43F 1D28 101D 1040 17A2 17A3 1835 1855 199E
    19D0 19B1 19D1 1A45 1A80 1A45 1A90 1B0D 1B52 1B11 1B53 1B28 1B58 1D0D 43C 1D18 1D29 1D1B 442
    2C67 4A2 2C69 49A 10382 103D1 10393 103D3 1039A 12038 10486 104A0
""".split()


IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)


def formula(text: str) -> str:
    """Return N as guard.md writes it: over the whole text, one step after the other."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKD", text).casefold()  # a capital under a decomposition
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if unicodedata.category(c)[0] != "M")
    text = "".join(CONFUSABLES.get(c, c) for c in IGNORABLE.sub("", text))
    text = "".join(str(unicodedata.digit(c, c)) for c in text)
    return "".join(c for c in text if unicodedata.category(c)[0] in "LN")


@given(TEXTS, TEXTS)
def test_the_form_of_a_text_is_the_forms_of_its_parts_joined(a: str, b: str) -> None:
    assert N(a + b) == N(a) + N(b)
    assert N_b(a + b) == re.sub(f"{SEP}+", SEP, N_b(a) + N_b(b))


@given(TEXTS)
def test_a_normal_form_is_its_own_normal_form(text: str) -> None:
    assert N(N(text)) == N(text)
    assert N_b(N_b(text)) == N_b(text)


@given(TEXTS)
def test_n_is_n_b_without_its_separators(text: str) -> None:
    assert N(text) == N_b(text).replace(SEP, "")
    assert SEP + SEP not in N_b(text)


@given(TEXTS)
def test_case_and_accents_do_not_count(text: str) -> None:
    assert N(text.casefold()) == N(text)
    assert N(unicodedata.normalize("NFD", text)) == N(text)
    assert N("\u0301".join(text)) == N(text)


@given(TEXTS, st.booleans())
def test_every_symbol_knows_the_character_that_wrote_it(text: str, bounded: bool) -> None:
    symbols, offsets = aligned(text, bounded=bounded)
    assert symbols == (N_b(text) if bounded else N(text))
    assert offsets == sorted(offsets)
    assert all(symbol in fold(text[at]) for symbol, at in zip(symbols, offsets, strict=True))


def test_every_code_point_comes_to_what_the_formula_says() -> None:
    codes = (*range(0x32000), *range(0xE0000, 0xE0200))  # all that Unicode has assigned, and more
    apart = [c for c in codes if c not in BEYOND and N(chr(c)) != formula(chr(c))]
    assert [hex(c) for c in apart] == []


@given(st.text(st.one_of(st.characters(), st.characters(categories=["Mn", "Ll"])), max_size=20))
def test_a_text_with_accents_comes_to_what_the_formula_says(text: str) -> None:
    if not any(ord(c) in BEYOND for c in text):
        assert N(text) == formula(text)


@pytest.mark.parametrize(
    "spelling",
    [
        "HSIAO YUN-HWA",
        "H s i a o  Y u n - H w a",
        "H-s-i-a-o-Y-u-n-H-w-a",
        "H.s.i.a.o.Y.u.n.H.w.a",
        "H\u200bs\u200ci\u2060a\ufeffo Yun\u00adHwa",
        "Ｈｓｉａｏ　Ｙｕｎ－Ｈｗａ",
        "𝕳𝖘𝖎𝖆𝖔 𝓨𝓾𝓷 ⓗⓦⓐ",
        "🅷🆂🅸🅰🅾 🅈🅄🄽 🇭🇼🇦",
        "Нѕіао Υun-Нԝа",
        "H̷s̶i̵a͓o Ÿún-Hwâ",
        "ʜꜱɪᴀᴏ ʏᴜɴ-ʜᴡᴀ",
        "\u202eHsiao\u202c _Yun_ **Hwa**",
        "Hs😀iao\nYun\tHwa",
        "H\U000e0041siao Yun Hwa",
        "Hsıao Yun-Hwa",
    ],
)
def test_spellings_of_one_name_come_to_one_form(spelling: str) -> None:
    assert N(spelling) == "hsiaoyunhwa"


def test_separators_are_told_from_what_vanishes() -> None:
    assert N_b("fe-male") == f"fe{SEP}male"
    assert N_b("fe\u00adma\u200ble\u0301") == "female"
    assert N_b(" ... male, ") == f"{SEP}male{SEP}"
    assert N_b("male™") == f"male{SEP}"


def test_digits_of_any_script_are_ascii_digits() -> None:
    assert N("٤２④❹⑷४4") == "4244444"


@pytest.mark.parametrize("word", ["МАВРИН", "Νεστος", "ΝΕΣΤΟΣ", "Łódź", "ᏣᎳᎩ"])
def test_a_look_alike_letter_has_one_image_whatever_its_case(word: str) -> None:
    assert N(word.lower()) == N(word.upper()) == N(word)


def test_unicodes_intentional_confusables_are_one_letter() -> None:
    codes = [chr(int(code, 16)) for code in INTENTIONAL]
    pairs = list(zip(codes[::2], codes[1::2], strict=True))
    assert len(pairs) == 75
    assert [(a, b) for a, b in pairs if fold(a) != fold(b)] == []


def test_no_image_of_a_look_alike_is_a_look_alike() -> None:
    assert not {c for image in CONFUSABLES.values() for c in image} & CONFUSABLES.keys()
    assert all(key.casefold() == key for key in CONFUSABLES)


def test_a_capital_behind_a_small_letter_or_a_digit_begins_a_word() -> None:
    assert word_starts("isParis and isNOT2Late") == (2, 14, 18)
    assert word_starts("PARIS Paris") == ()
    assert word_starts("Paris", inside=True) == (0,)
    assert word_starts("is\u200bParis e\u0301Paris") == (3, 11)
    assert set(words_apart("isParis")) == {N_b("isParis"), N_b("is Paris")}


@given(st.text("aB1 é\u200b\u0301", max_size=8), st.text("aB1 é\u200b\u0301", max_size=8))
def test_where_words_begin_inside_words_does_not_depend_on_the_cut(a: str, b: str) -> None:
    behind = word_starts(b, inside=ends_inside(a))
    assert word_starts(a + b) == (*word_starts(a), *(len(a) + at for at in behind))
    assert ends_inside(a + b) == ends_inside(b, inside=ends_inside(a))


def test_no_combining_mark_comes_to_a_letter_not_even_the_one_that_case_folds_to_iota() -> None:
    assert N("a\u0345b") == "ab"
    marks = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M"]
    assert not N("".join(marks))
