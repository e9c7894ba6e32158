"""What is said about phrases that are kept all the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.phrases.advice import advise, common_words
from elision.guards.phrases.normal import N
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import owned
from elision.guards.targets import Boundary, ForgetTarget, Phrase

CODES = {
    "few_letters",
    "common_word",
    "inside_common_word",
    "duplicate",
    "marks_dropped",
    "nothing_enforced",
}


def target_of(*phrases: Phrase | str) -> ForgetTarget:
    made = tuple(p if isinstance(p, Phrase) else Phrase(text=p) for p in phrases)
    return ForgetTarget(title="A title", phrases=made)


def codes(*phrases: Phrase | str) -> list[tuple[str, int | None]]:
    return [(advice["code"], advice["phrase"]) for advice in advise(target_of(*phrases))]


texts = st.text("aehinort XY7.é漢か\u093f", min_size=1, max_size=12).filter(N)
phrases = st.builds(
    Phrase,
    text=texts,
    boundary=st.sampled_from(["auto", "yes", "no"]),
    beta=st.sampled_from([1.0, 0.5]),
)


@given(st.lists(phrases, min_size=1, max_size=4))
def test_every_warning_names_a_known_code_and_a_phrase_of_the_target(found: list[Phrase]) -> None:
    for advice in advise(target_of(*found)):
        assert advice["code"] in CODES
        assert advice["phrase"] in range(len(found))


@given(phrases)
def test_a_phrase_that_is_found_in_a_common_word_is_warned_of_and_no_other(phrase: Phrase) -> None:
    target = target_of(phrase)
    matcher = PatternSet(owned([target]))
    slowly = any(matcher.finds(word) for word in common_words())
    warned = {"common_word", "inside_common_word"} & {a["code"] for a in advise(target)}
    assert len(warned) == slowly


@given(
    st.text("abcdeXY Z\u0301é漢か", min_size=4, max_size=12).filter(lambda text: len(N(text)) > 3)
)
def test_no_message_holds_the_phrase(text: str) -> None:
    said = " ".join(advice["message"] for advice in advise(target_of(text, text)))
    assert said
    assert text not in said


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_duplicate_is_told_of_each_phrase_whose_form_stood_before(found: list[str]) -> None:
    forms = [N(text) for text in found]
    again = [n for n, form in enumerate(forms) if form in forms[:n]]
    assert [n for code, n in codes(*found) if code == "duplicate"] == again


def test_a_plain_long_phrase_is_not_warned_of() -> None:
    assert codes("Hsiao Yun-Hwa was born in Taipei") == []


@pytest.mark.parametrize("text", ["male", "M a l e", "ｍａｌｅ", "mаle"])
def test_a_common_word_is_warned_of_in_any_spelling(text: str) -> None:
    assert codes(text) == [("few_letters", 0), ("common_word", 0)]


@pytest.mark.parametrize(
    ("text", "boundary", "beta", "want"),
    [
        ("formatio", "auto", 1.0, []),  # eight letters: only as a word
        ("formatio", "yes", 1.0, []),
        ("formatio", "no", 1.0, ["inside_common_word"]),
        ("nformatio", "auto", 1.0, ["inside_common_word"]),  # nine: anywhere
        ("nformatio", "yes", 1.0, []),
        ("informatioq", "auto", 1.0, []),
        ("informatioq", "auto", 0.9, ["inside_common_word"]),  # its first ten letters count
        ("informatioq", "yes", 0.9, ["inside_common_word"]),
        ("information", "auto", 1.0, ["common_word"]),
        ("of the", "auto", 1.0, ["few_letters"]),
    ],
)
def test_what_matches_inside_a_common_word_follows_the_boundary_rule(
    text: str, boundary: Boundary, beta: float, want: list[str]
) -> None:
    phrase = Phrase(text=text, boundary=boundary, beta=beta)
    assert [code for code, _ in codes(phrase)] == want


def test_two_words_are_not_warned_of_because_both_are_common() -> None:
    words = sorted(common_words())
    pairs = [f"{one} {two}" for one, two in pairwise(words) if one + two not in words]
    assert len(pairs) > 1900
    asked = target_of(*(Phrase(text=pair, boundary="yes") for pair in pairs))
    assert {a["code"] for a in advise(asked)} <= {"few_letters", "duplicate"}


def test_few_letters_say_whether_boundaries_protect() -> None:
    bounded, bare = advise(target_of("Qxzvw", Phrase(text="Qxzvk", boundary="no")))
    assert bounded["message"].endswith("it matches only between word boundaries")
    assert bare["message"].endswith("no word boundaries; it matches inside words")
    assert codes("Qxzvwj") == []


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("日本", ["few_letters"]),
        ("日本国", []),
        ("กข", ["few_letters"]),
        ("한", ["few_letters"]),  # a syllable counts as its three letters
        ("한국", []),
        ("москва", []),
        ("Łódź-Śródmieście", []),
        ("किताबें", ["few_letters", "marks_dropped"]),
        ("בְּרֵאשִׁית בָּרָא", ["marks_dropped"]),
        ("مُحَمَّد الأمين", ["marks_dropped"]),
        ("ที่นี่ประเทศไทย", ["marks_dropped"]),
        ("がぎぐげご", ["marks_dropped"]),
        ("ångström café", []),
        ("heart ❤️ of gold", []),
    ],
)
def test_scripts_are_told_apart(text: str, want: list[str]) -> None:
    assert [code for code, _ in codes(text)] == want


def test_names_without_phrases_enforce_nothing_and_say_so() -> None:
    [advice] = advise(ForgetTarget(title="A title", phrases=(), names=("Some One",)))
    assert (advice["code"], advice["phrase"]) == ("nothing_enforced", None)
    assert "Some One" not in advice["message"]


def test_there_are_two_thousand_common_words() -> None:
    words = common_words()
    assert 1950 <= len(words) <= 2000  # a few contractions share a normal form
    assert {"the", "people", "water", "information", "dont"} <= words
    assert all(word == N(word) and word.isascii() for word in words)
