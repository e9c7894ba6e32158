"""Hold-back: what leaves is final, holds no phrase, and does not depend on the pieces."""

from __future__ import annotations

import json as jsonlib
import re
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import ALLOW, Refuse, Verdict
from elision.guards.phrases.holdback import HoldBack
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner
from elision.guards.phrases.tracker import Tracker
from elision.guards.phrases.unescape import Json, Plain
from elision.guards.targets import Action, Phrase

MARK = "[x]"
thorough = settings(max_examples=300)
NAME = "Hsiao Yun-Hwa"

words = st.sampled_from(
    "male|Male|m a l e|male\u0301|ma|le|fe|abcabcabc|a-b c|ab|c| |.|é|\u200b|abcabcabcabd|b\u0301|"
    '[|\\|"|x'.split("|")
)
texts = st.lists(words, max_size=12).map("".join)


def phrase_set(*phrases: str | Phrase, action: Action = "redact") -> PatternSet:
    made = [p if isinstance(p, Phrase) else Phrase(text=p) for p in phrases]
    return PatternSet((Owner("t", n, action, p.allow_echo), p) for n, p in enumerate(made))


BANNED = ("male", "abcabcabc", "bcabcabcabd")
REDACTED = phrase_set(*BANNED)
REFUSED = phrase_set(*BANNED, action="refuse")


def hold(patterns: PatternSet, *, json: bool = False, before: str = "") -> HoldBack:
    return HoldBack(patterns, json=json, marker=MARK, before=before)


def cut(data: st.DataObject, text: str) -> list[str]:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def spoken(holdback: HoldBack, pieces: list[str]) -> tuple[str, Verdict]:
    """Return all that leaves and the last verdict."""
    out, verdict = [], ALLOW
    for piece in pieces:
        text, verdict = holdback.feed(piece)
        out.append(text)
        if isinstance(verdict, Refuse):
            return "".join(out), verdict
    text, verdict = holdback.finish()
    return "".join([*out, text]), verdict


def readings(text: str) -> list[str]:
    """Return *text* in N_b, once for every choice of the capitals that begin a word in a word."""
    bare = re.sub("[\u0300-\u036f\u200b]", "", normalize("NFD", text))
    parts = re.split("(?<=[a-z0-9])(?=[A-Z])", bare)
    joined = [parts[0]]
    for part in parts[1:]:
        joined = [before + glue + part for before in joined for glue in ("", " ")]
    return [SEP + N_b(reading) + SEP for reading in joined]


def leaks(text: str) -> bool:
    """Return whether *text* holds a banned phrase, by plain search."""
    short = re.compile(f"{SEP}(male|m{SEP}a{SEP}l{SEP}e){SEP}")
    return any(short.search(reading) for reading in readings(text)) or any(
        phrase in N(text) for phrase in BANNED[1:]
    )


@thorough
@given(texts, st.data())
@pytest.mark.parametrize("patterns", [REDACTED, REFUSED])
@pytest.mark.parametrize("json", [False, True])
def test_the_same_leaves_whatever_the_pieces(
    patterns: PatternSet, json: bool, text: str, data: st.DataObject
) -> None:
    whole = spoken(hold(patterns, json=json), [text])
    assert spoken(hold(patterns, json=json), cut(data, text)) == whole
    assert spoken(hold(patterns, json=json), list(text)) == whole


@thorough
@given(texts, st.data())
def test_no_phrase_ever_leaves(text: str, data: st.DataObject) -> None:
    for patterns in (REDACTED, REFUSED):
        for part in spoken(hold(patterns), cut(data, text))[0].split(MARK):
            assert not leaks(part)


@given(texts, st.data())
def test_what_has_left_and_what_is_held_is_the_text_so_far(text: str, data: st.DataObject) -> None:
    holdback, released, fed = hold(REFUSED), "", ""
    for piece in cut(data, text):
        out, verdict = holdback.feed(piece)
        if isinstance(verdict, Refuse):
            break
        released, fed = released + out, fed + piece
        assert fed.startswith(released)
        assert len(released) + holdback.held == len(fed)


@thorough
@given(texts)
def test_an_answer_is_refused_if_and_only_if_it_holds_a_phrase(text: str) -> None:
    out, verdict = spoken(hold(REFUSED), [text])
    assert isinstance(verdict, Refuse) == leaks(text)
    assert text.startswith(out)
    assert (out == text) == (verdict == ALLOW)


@thorough
@given(texts)
def test_redaction_replaces_the_united_spans_that_a_search_finds(text: str) -> None:
    """Seams apart: where letters touch a span, more than the search finds may go."""
    spans: list[list[int]] = []
    for _, start, end in sorted(REDACTED.find(text), key=lambda found: found[1:]):
        if spans and start < spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([start, end])
    if any(N_b(text[:a])[-1:].isalnum() or N_b(text[b:])[:1].isalnum() for a, b in spans):
        return
    expected, at = "", 0
    for start, end in spans:
        expected, at = expected + text[at:start] + MARK, end
    holdback = hold(REDACTED)
    assert spoken(holdback, [text]) == (expected + text[at:], ALLOW)
    assert holdback.n_redacted == len(spans)


@given(texts)
def test_only_what_may_still_grow_is_held(text: str) -> None:
    holdback = hold(REFUSED)
    _, verdict = holdback.feed(text)
    if verdict == ALLOW and holdback.held:
        tail = N(text[len(text) - holdback.held :])
        assert any(phrase.startswith(tail) or tail.startswith("male") for phrase in BANNED)


def test_a_span_that_is_cut_out_makes_words_of_what_it_touched() -> None:
    patterns = phrase_set("male", "abcabcabc")
    assert spoken(hold(patterns), ["maleabcabcabc."])[0] == f"{MARK}."
    assert spoken(hold(patterns), ["abcabcabcmale."])[0] == f"{MARK}{MARK}."
    assert spoken(hold(patterns), ["abcabcabcm a l e."])[0] == f"{MARK}{MARK}."
    assert spoken(hold(patterns), ["femaleabcabcabcmales."])[0] == f"female{MARK}males."
    refused = phrase_set("male", "abcabcabc", action="refuse")
    assert spoken(hold(refused), ["maleabcabcabc."]) == ("", Refuse())


def test_ordinary_text_is_not_held_at_all() -> None:
    holdback = hold(phrase_set(NAME))
    for word in ("The ", "quick ", "fox ", "jumps."):
        assert holdback.feed(word) == (word, ALLOW)
        assert holdback.held == 0


def test_a_beginning_is_held_and_let_go_when_it_becomes_something_else() -> None:
    holdback = hold(phrase_set(NAME))
    assert holdback.feed("She is H.s.i.a.o Yu") == ("She is ", ALLOW)
    assert holdback.held == 12
    assert holdback.feed("le ") == ("H.s.i.a.o Yule ", ALLOW)


def test_a_word_is_held_until_its_end_is_seen() -> None:
    holdback = hold(phrase_set("male"))
    assert holdback.feed("a male") == ("a ", ALLOW)
    assert holdback.feed("volent") == ("malevolent", ALLOW)
    assert holdback.feed(" male") == (" ", ALLOW)
    assert holdback.finish() == (MARK, ALLOW)


def test_the_longest_match_wins_and_overlapping_ones_unite() -> None:
    patterns = phrase_set("abcdefghij", "abcdefghijklm", "klmnopqrst")
    assert spoken(hold(patterns), ["xabcdefghij y"])[0] == f"x{MARK} y"
    assert spoken(hold(patterns), ["xabcdefghijklmz"])[0] == f"x{MARK}z"
    assert spoken(hold(patterns), ["xabcdefghijklmnopqrstz"])[0] == f"x{MARK}z"


def test_a_refusal_ends_the_stream_for_good() -> None:
    holdback = hold(phrase_set(NAME, action="restrict"))
    assert holdback.feed(f"Ask {NAME} about it") == ("Ask ", Refuse())
    assert holdback.feed("more") == ("", Refuse())
    assert holdback.finish() == ("", Refuse())
    assert holdback.held == 0


def test_a_refusal_beats_a_redaction_that_overlaps_it() -> None:
    phrases = [Phrase(text="abcdefghij"), Phrase(text="ghijklmnop")]
    owners = [Owner("r", 0, "redact", False), Owner("f", 0, "refuse", False)]
    patterns = PatternSet(zip(owners, phrases, strict=True))
    assert spoken(hold(patterns), ["x abcdefghij, abcdefghijklmnop"]) == (f"x {MARK}, ", Refuse())


def test_a_phrase_begun_in_the_prefill_is_caught_but_the_prefill_is_not_judged() -> None:
    patterns = phrase_set(NAME, "male")
    assert spoken(hold(patterns, before="Hsiao Yun-"), ["Hwa!"])[0] == f"{MARK}!"
    assert spoken(hold(patterns, before=f"{NAME} is male"), [" indeed"])[0] == " indeed"
    assert spoken(hold(patterns, before="fe"), ["male"])[0] == "male"
    assert spoken(hold(patterns, before="male"), ["\u0301 x"])[0] == "\u0301 x"


def test_an_excluded_owner_does_not_count() -> None:
    holdback = HoldBack(phrase_set("male", NAME), excluded={0}, marker=MARK)
    assert spoken(holdback, [f"male {NAME}"])[0] == f"male {MARK}"


def test_an_empty_guard_lets_everything_through_at_once() -> None:
    holdback = hold(phrase_set())
    assert holdback.feed("anything") == ("anything", ALLOW)
    assert holdback.finish() == ("", ALLOW)


def test_a_held_text_has_no_limit_here() -> None:
    holdback = hold(phrase_set(NAME))
    holdback.feed("Hsiao Yun-Hw" + " " * 2000)
    assert holdback.held == 2012
    assert holdback.feed("a")[0] == ""
    assert holdback.finish()[0] == MARK


# --- JSON source ---------------------------------------------------------------------------------

values = st.text(st.sampled_from('aé"\\\n\t/\u2028😀\x00Hsi'), max_size=8)


@given(values, st.booleans(), st.data())
def test_a_json_string_is_read_as_its_value(
    value: str, ascii_only: bool, data: st.DataObject
) -> None:
    source = jsonlib.dumps({"k": value}, ensure_ascii=ascii_only)
    reader, read = Json(), []
    for piece in cut(data, source):
        read += list(reader.read(piece))
    read += list(reader.finish())
    assert "".join(char.value for char in read) == '{"k": "' + value + '"}'
    ends = [0, *(char.end for char in read)]
    assert [char.start for char in read] == ends[:-1]
    assert ends[-1] == len(source)


@given(st.text(st.sampled_from('"\\u00e9dD8x{'), max_size=14))
def test_broken_json_is_read_to_its_last_character(source: str) -> None:
    reader = Json()
    read = [*reader.read(source), *reader.finish()]
    ends = [0, *(char.end for char in read)]
    assert [char.start for char in read] == ends[:-1]
    assert ends[-1] == len(source)
    assert not any(0xD800 <= ord(char.value) < 0xE000 for char in read)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (r'"\u0048\u0077"', '"Hw"'),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\ud83dx"', '"�x"'),
        (r'"\ude00\ud83d"', '"��"'),
        (r'"\ud83d\n"', '"�\n"'),
        (r'"\q\u12"', '"qu12"'),
        (r'"\\u0048"', r'"\u0048"'),
        (r"{\u0048: 1}", r"{\u0048: 1}"),
        (r'"a\"b" \n', r'"a"b" \n'),
    ],
)
def test_escapes_mean_what_json_says(source: str, value: str) -> None:
    reader = Json()
    read = [*reader.read(source), *reader.finish()]
    assert "".join(char.value for char in read) == value


def test_plain_text_stands_for_itself() -> None:
    reader = Plain()
    assert [(c.value, c.start, c.end) for c in [*reader.read("ab"), *reader.read("c")]] == [
        ("a", 0, 1), ("b", 1, 2), ("c", 2, 3),
    ]  # fmt: skip


def test_an_escape_is_never_split() -> None:
    holdback = hold(phrase_set(NAME), json=True)
    assert holdback.feed(r'{"a": "\u00')[0] == '{"a": "'
    assert holdback.feed("e9")[0] == r"\u00e9"


@pytest.mark.parametrize("action", ["redact", "refuse", "restrict"])
def test_a_phrase_in_a_tool_call_is_refused_never_redacted(action: Action) -> None:
    source = '{"name": "' + "".join(f"\\u{ord(c):04x}" for c in NAME) + '"}'
    holdback = hold(phrase_set(NAME, action=action), json=True)
    assert spoken(holdback, [source]) == ('{"name": "', Refuse())
    assert holdback.n_redacted == 0


# --- The tracker ---------------------------------------------------------------------------------


@given(texts, texts)
def test_a_fork_leaves_the_tracker_it_came_from_alone(text: str, more: str) -> None:
    tracker, source = Tracker(REDACTED), Plain()
    for char in source.read(text):
        list(tracker.read(char))
    before = (tracker.reading, tracker.frontier, tracker.safe(), tracker.length)
    fork = tracker.fork()
    for char in source.read(more):
        list(fork.read(char))
    list(fork.finish())
    assert (tracker.reading, tracker.frontier, tracker.safe(), tracker.length) == before


@given(texts)
def test_what_is_safe_never_moves_back(text: str) -> None:
    tracker, safe = Tracker(REDACTED), 0
    for char in Plain().read(text):
        list(tracker.read(char))
        assert safe <= tracker.safe() <= tracker.length
        safe = tracker.safe()
