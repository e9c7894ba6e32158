"""Cues: what fires, what does not, and what is refused before it can do harm."""

from __future__ import annotations

import re
import time
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.memory.learning.cues import LONGEST_READ, Cue, read
from elision.memory.learning.regex import MOST_STEPS, Regex


def fires(kind: Any, pattern: str, text: str) -> bool:
    return Cue(type=kind, pattern=pattern).matches(text, {})


# --- keyword ------------------------------------------------------------------------------------

words = st.text("abcéßиह", min_size=1, max_size=4)


@given(words, words, words)
def test_a_keyword_never_matches_inside_a_word(before: str, word: str, after: str) -> None:
    assume(before.casefold() != word.casefold() != after.casefold())
    text = f"{before}{word} {word}{after} {before}{word}{after} {word}\u0301"
    alone = {part.casefold() for part in text.split()}
    assert fires("keyword", word, text) == (word.casefold() in alone)


@given(st.lists(words, max_size=8), st.lists(words, min_size=1, max_size=3))
def test_a_keyword_matches_where_its_words_stand_side_by_side(
    told: list[str], wanted: list[str]
) -> None:
    folded, phrase = [w.casefold() for w in told], [w.casefold() for w in wanted]
    places = range(len(folded) - len(phrase) + 1)
    slow = any(folded[at : at + len(phrase)] == phrase for at in places)
    assert fires("keyword", " ".join(wanted), "\n ".join(told)) == slow


@given(st.text(max_size=30), st.text(min_size=1, max_size=10), st.text(max_size=30))
def test_a_keyword_between_spaces_is_found_whatever_it_is(a: str, word: str, b: str) -> None:
    assume(word.strip())
    assert fires("keyword", word, f"{a} {word} {b}")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("read file", "Please READ\nFILE now", True),
        ("read file", "reread file", False),
        ("read file", "read files", False),
        ("read file", "read the file", False),
        ("read file", "read-file", False),
        ("read.*file", "read the file", False),
        ("c++", "port it to C++, then", True),
        ("c++", "port it to C", False),
        ("straße", "die STRASSE", True),
        ("हिन्दी", "यह हिन्दी है", True),
        ("न", "यह हिन्दी है", False),
        ("e", "e\u0301tat", False),
    ],
)
def test_keywords_by_example(pattern: str, text: str, found: bool) -> None:
    assert fires("keyword", pattern, text) is found


# --- regex --------------------------------------------------------------------------------------

atoms = st.sampled_from(
    [*"ab_", ".", "é", r"\w", r"\W", r"\d", r"\s", "[ab]", "[^a]", "[a-z0-9]", r"[\W_]", r"\."]
)
anchors = st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z"])
repeats = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "{0,2}?"])
pieces = st.builds(str.__add__, atoms, repeats)
plain = st.lists(atoms | anchors, max_size=3).map("".join)
groups = st.builds("({}{}|{}){}".format, st.sampled_from(["", "?:", "?i:"]), plain, plain, repeats)
sequences = st.lists(pieces | anchors | groups, min_size=1, max_size=5).map("".join)
flags = st.sampled_from(["", "", "(?i)", "(?m)", "(?s)", "(?a)"])
regexes = st.builds("{}{}".format, flags, sequences | st.builds("{}|{}".format, sequences, plain))


@given(regexes, st.lists(st.text("abAB_.0 é\n", max_size=10), min_size=5, max_size=10))
def test_a_regex_finds_what_re_finds(pattern: str, texts: list[str]) -> None:
    slow = re.compile(pattern)
    if slow.search(""):
        with pytest.raises(ConfigError, match="empty text"):
            Regex(pattern)
        return
    regex = Regex(pattern)
    for text in texts:
        assert regex.search(text) == bool(slow.search(text))


REFUSED = {
    r"(a+)+$": "quantifier inside",
    r"(?:a*b?)*c": "quantifier inside",
    r"((ab?)c){2,}": "quantifier inside",
    r"(x{2}){3}": "quantifier inside",
    r"(a|(b|c+))*d": "quantifier inside",
    r"(a)\1": "a backreference",
    r"(?P<x>a)(?P=x)": "a backreference",
    r"(a)?(?(1)b|c)": "a conditional group",
    r"a(?=b)": "lookaround",
    r"a(?!b)": "lookaround",
    r"(?<=a)b": "lookaround",
    r"(?<!a)b": "lookaround",
    r"a(?!)": "lookaround",
    r"(?>ab)c": "an atomic group",
    r"a++b": "a possessive",
    r"a(": "cannot be parsed",
    r"a{99999999999999}": "cannot be parsed",
    "a{4000000}": f"more than {MOST_STEPS}",
    "a{30}b{200}.{30}": f"more than {MOST_STEPS}",
    "a*": "empty text",
    "a" * 151: "151 characters",
    "(" * 75 + ")" * 75: "empty text",
}


@pytest.mark.parametrize("pattern", list(REFUSED))
def test_a_regex_outside_the_subset_is_refused_at_once(pattern: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError, match=REFUSED[pattern]):
        Cue(type="regex", pattern=pattern)
    assert time.process_time() - begun < 0.1


def test_an_error_tells_nothing_of_the_pattern() -> None:
    for kind, pattern in [("regex", "(?P=salary)"), ("predicate", "salary salary")]:
        with pytest.raises(ConfigError) as caught:
            Cue(type=kind, pattern=pattern)  # type: ignore[arg-type]
        assert "salary" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert "salary" not in repr(Cue(type="predicate", pattern="salary == 'salary'"))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a|aa)+$",
        "(a|a|a)*[bc]",
        "a*a*a*a*a*a*[bc]",
        r"\w+[@#]\w+",
        ".*.*.*[=:].*[xy]",
        "(.|a){0,80}[bc]",
        r"\b[ab]{0,120}[cd]$",
    ],
)
def test_what_takes_re_for_ever_takes_linear_time_here(pattern: str) -> None:
    cue = Cue(type="regex", pattern=pattern)
    begun = time.process_time()
    assert not cue.matches("a" * (LONGEST_READ - 1) + "!", {})
    assert time.process_time() - begun < 2


def test_a_text_that_leads_to_new_states_at_every_character_is_read_in_linear_time_too() -> None:
    regex, choose = Regex("a.{250}[cd]"), Random(1)
    text = "".join(choose.choices("ab", k=4_000))
    begun = time.process_time()
    assert not regex.search(text)
    assert time.process_time() - begun < 2
    assert regex.search(text + "a" + text[:250] + "c")


def test_a_regex_reads_no_further_than_its_limit() -> None:
    cue = Cue(type="regex", pattern="needle")
    assert cue.matches("x" * (LONGEST_READ - 6) + "needle", {})
    assert not cue.matches("x" * (LONGEST_READ - 5) + "needle", {})


def test_a_regex_forgets_steps_before_they_fill_the_memory() -> None:
    regex = Regex(r".[^x]{0,9}[xy]")
    assert not regex.search("".join(map(chr, range(0x4E00, 0x4E00 + 9000))))
    assert max(map(len, (regex._moves, regex._readers, regex._fours))) <= 2048


# --- semantic, and all --------------------------------------------------------------------------


@given(st.floats(-1, 1), st.floats(-1, 1) | st.none())
def test_a_semantic_cue_fires_from_its_cosine_on(least: float, cosine: float | None) -> None:
    cue = Cue(type="semantic", pattern="files are large", min_sim=least)
    assert cue.matches("files are large", {}, cosine) == (cosine is not None and cosine >= least)


def test_only_the_cosine_moves_a_semantic_cue_and_never_another() -> None:
    assert not Cue(type="semantic", pattern="x").matches("x", {"x": True}, float("nan"))
    assert not Cue(type="keyword", pattern="x").matches("y", {"x": True}, 1.0)


@given(st.text(max_size=60), st.sampled_from(["keyword", "regex"]))
def test_a_text_read_beforehand_gives_the_same_answer(text: str, kind: Any) -> None:
    cue = Cue(type=kind, pattern="a")
    assert cue.matches(read(text), {}) == cue.matches(text, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "glob", "pattern": "x"}, "a cue is one of keyword, regex, predicate, semantic"),
        ({"type": "keyword", "pattern": " \n"}, "empty"),
        ({"type": "semantic", "pattern": "x" * 151}, "151 characters"),
        ({"type": "semantic", "pattern": "x", "min_sim": 1.1}, "min_sim"),
        ({"type": "semantic", "pattern": "x", "min_sim": float("nan")}, "min_sim"),
    ],
)
def test_a_cue_is_checked_when_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cue(**fields)
