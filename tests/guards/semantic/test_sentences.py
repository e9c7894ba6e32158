"""Where words and sentences end: by the text alone, whatever the pieces in which it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.semantic.sentences import (
    MAX_CHARS,
    MAX_WORD_CHARS,
    WINDOW_WORDS,
    Piece,
    Running,
    plain,
    sentences,
    views,
    words,
)

parts = st.sampled_from(
    [
        *"ab .\n!?…\"”)'-。é",
        *("Dr. ", "3.5", "U.S. ", "word ", "Kuwait ", "e.g. ", "1. ", "x" * 70),
        "so it goes on and on without an end " * 4,
    ]
)
texts = st.lists(parts, max_size=30).map("".join)


def pieces_of(*parts: str, before: str = "") -> list[Piece]:
    running, found = Running.after(before), list[Piece]()
    for part in parts:
        running, new = running.read(part)
        found += new
    return [*found, *running.finish()[1]]


@given(texts, st.lists(st.integers(0, 400), max_size=5), texts)
def test_pieces_do_not_depend_on_where_the_text_is_cut(
    text: str, cuts: list[int], before: str
) -> None:
    ends = [*sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert pieces_of(*parts, before=before) == pieces_of(text, before=before)


@given(texts)
def test_every_letter_is_in_one_sentence_and_in_its_place(text: str) -> None:
    found = [piece for piece in pieces_of(text) if piece.kind == "sentence"]
    covered = set[int]()
    for piece in found:
        assert text[piece.start : piece.end] == piece.text[piece.lead :].strip()
        assert piece.floor <= piece.start
        assert not covered & {*range(piece.start, piece.end)}
        covered |= {*range(piece.start, piece.end)}
    assert {at for at, char in enumerate(text) if char.isalnum()} <= covered


@given(texts)
def test_every_letter_is_in_a_word_and_in_its_place(text: str) -> None:
    covered = set[int]()
    for piece in (piece for piece in pieces_of(text) if piece.kind == "word"):
        assert text[piece.start : piece.end] == piece.text
        covered |= {*range(piece.start, piece.end)}
    assert {at for at, char in enumerate(text) if char.isalnum()} <= covered


@given(texts)
def test_nothing_is_held_for_ever(text: str) -> None:
    running = Running()
    for char in text:
        running, _ = running.read(char)
        assert 0 <= running.end - running.floor <= MAX_CHARS
        assert len(running.text) < 3 * MAX_CHARS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He came. She left.", ["He came.", "She left."]),
        ("Dr. Smith saw J. K. Lowe in the U.S. yesterday.", None),
        ("It costs 3.5 million. Or not", ["It costs 3.5 million.", "Or not"]),
        ("That was 1991. Then", ["That was 1991.", "Then"]),
        ("1. First point. 2. Second", ["1. First point.", "2. Second"]),
        ('"Why?" she asked.', ['"Why?"', "she asked."]),
        ("one line\nanother", ["one line", "another"]),
        ("私は学生です。東京に住む。", ["私は学生です。", "東京に住む。"]),
        ("Fruit (e.g. pears, etc. and so on) is fine.", None),
        ("...\n\n- \n", []),
    ],
)
def test_a_sentence_ends_where_a_reader_would_end_it(text: str, expected: list[str] | None) -> None:
    assert [*sentences(text)] == ([text] if expected is None else expected)


def test_a_sentence_that_was_begun_in_the_prefill_is_judged_with_its_beginning() -> None:
    sentence = pieces_of(" in Velm. Yes", before="Hm. She was born")[2]
    assert sentence == Piece("sentence", " She was born in Velm.", 1, 9, 0, 13)


def test_a_word_that_was_begun_in_the_prefill_can_be_changed_from_the_reply_on() -> None:
    assert pieces_of("lm.", before="in Ve")[0] == Piece("word", "Velm", 0, 2, 0)


def test_what_stands_before_a_cut_is_read_again_behind_it() -> None:
    text = "alpha beta gamma " * 40
    first, second, *_ = [piece for piece in pieces_of(text) if piece.kind == "sentence"]
    assert first.end <= second.start <= MAX_CHARS
    assert second.lead > 0
    assert first.text.endswith(second.text[: second.lead])


def test_a_word_without_end_is_judged_in_parts() -> None:
    found = [piece.text for piece in pieces_of("x" * 150) if piece.kind == "word"]
    assert "".join(found) == "x" * 150
    assert max(map(len, found)) <= MAX_WORD_CHARS


def test_words_keep_inner_marks_and_lose_outer_ones() -> None:
    assert [*words("Al-Kuwaiti's 'quoted' rock—roll, isn't it?")] == [
        "Al-Kuwaiti's", "quoted", "rock", "roll", "isn't", "it",
    ]  # fmt: skip


def test_a_long_sentence_is_also_compared_in_windows() -> None:
    text = " ".join(f"w{n}" for n in range(60))
    whole, *windows = views(text)
    assert whole == text
    assert {word for window in windows for word in window.split()} == {*text.split()}
    assert {len(window.split()) for window in windows} == {WINDOW_WORDS}
    assert views("a b") == ("a b",)
    assert views(" ") == ()


def test_an_encoder_reads_what_a_reader_sees() -> None:
    assert plain("Ｋｕ\u200bwait  \n is K u w a i t") == "Kuwait is Kuwait"
    assert plain("a b and U.S.A. too") == "a b and USA. too"
