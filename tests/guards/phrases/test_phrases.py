"""From a phrase to its patterns: the boundary rule, shares of a phrase, echo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import TargetError
from elision.guards.phrases.normal import SEP, N
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import LONGEST_BOUNDED, Owner, patterns
from elision.guards.targets import Boundary, Phrase


def forms(text: str, **options: object) -> dict[str, str]:
    """Return what is looked for, separators written as spaces, with its form."""
    found = patterns(Phrase(text=text, **options))  # type: ignore[arg-type]
    return {p.text.replace(SEP, " "): p.form for p in found}


def found(text: str, *phrases: Phrase) -> list[str]:
    """Return the parts of *text* that hold a phrase."""
    owned = [(Owner("t", n, "restrict", p.allow_echo), p) for n, p in enumerate(phrases)]
    return [text[hit.start : hit.end] for hit in PatternSet(owned).hits(text)]


def test_a_short_form_is_looked_for_between_boundaries_and_spelled_out() -> None:
    assert forms("male") == {" male": "N_b", " m a l e": "spelled"}


def test_a_long_form_is_looked_for_on_n() -> None:
    assert forms("Hsiao Yun-Hwa") == {"hsiaoyunhwa": "N"}


def test_eight_letters_are_short_and_nine_are_long() -> None:
    assert " abcdefgh" in forms("abcdefgh")
    assert forms("abcdefghi") == {"abcdefghi": "N"}
    assert LONGEST_BOUNDED == 8


def test_words_of_a_short_form_may_be_run_together() -> None:
    assert forms("Al Gore") == {" algore": "N_b", " al gore": "N_b", " a l g o r e": "spelled"}


def test_a_single_letter_is_one_pattern() -> None:
    assert forms("x") == {" x": "N_b"}


@pytest.mark.parametrize(
    ("text", "boundary", "form"),
    [
        ("male", "no", "N"),
        ("Hsiao Yun-Hwa", "yes", "N_b"),
        ("東京", "auto", "N"),
        ("東京", "yes", "N"),
        ("กรุงเทพ", "auto", "N"),
        ("서울", "auto", "N_b"),
    ],
)
def test_boundary_overrides_length_but_not_a_script_without_spaces(
    text: str, boundary: Boundary, form: str
) -> None:
    assert next(iter(forms(text, boundary=boundary).values())) == form


@given(st.integers(1, 30), st.floats(0.01, 1))
def test_a_share_counts_from_its_letters_on_but_never_below_six(n: int, beta: float) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123"[:n]
    first = patterns(Phrase(text=letters, beta=beta))[0]
    n_hot = len(N(first.text))
    assert n_hot >= min(6, n)
    assert n_hot == n or n_hot - 1 < max(beta * n, 6)
    assert n_hot >= beta * n - 1e-6
    assert first.closed == (first.form == "N_b" and n_hot == n)


def test_seven_tenths_of_ten_letters_are_seven() -> None:
    assert forms("abcdefghij", beta=0.7) == {"abcdefg": "N"}


@pytest.mark.parametrize("text", ["", " ", "...", "\u200b\u0301", "😀"])
def test_a_phrase_without_letters_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        patterns(Phrase(text=text))
    assert str(caught.value) == "a phrase needs at least one letter or digit"


@pytest.mark.parametrize("beta", [0, -1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(TargetError, match="beta"):
        patterns(Phrase(text="secret", beta=beta))


def test_a_short_phrase_is_found_as_a_word_and_not_in_one() -> None:
    text = "Male, fe-male and M.a.L.e m\u200bàle; but female, males, m alex: nothing. male"
    assert found(text, Phrase(text="male")) == ["Male", "male", "M.a.L.e", "m\u200bàle", "male"]


def test_accents_behind_a_phrase_belong_to_it() -> None:
    assert found("xx male\u0301\u200b!", Phrase(text="male")) == ["male\u0301\u200b"]


@given(st.text("ab- ", max_size=30))
def test_a_short_phrase_is_found_where_a_regular_expression_finds_it(text: str) -> None:
    import re

    spelled = r"(?<![ab])(?:ab|a[- ]+b)(?![ab])"
    expected = [match.span() for match in re.finditer(spelled, text)]
    hits = PatternSet([(Owner("t", 0, "restrict", False), Phrase(text="ab"))]).hits(text)
    assert sorted({(hit.start, hit.end) for hit in hits}) == expected


@given(st.text("abc- ", max_size=40))
def test_a_long_phrase_is_found_wherever_its_letters_follow_each_other(text: str) -> None:
    found = PatternSet([(Owner("t", 0, "restrict", False), Phrase(text="abcabcabc"))]).hits(text)
    assert bool(found) == ("abcabcabc" in N(text))


def test_only_phrases_that_allow_it_are_echoed() -> None:
    owned = [
        (Owner("a", 0, "restrict", True), Phrase(text="open secret", allow_echo=True)),
        (Owner("b", 0, "restrict", False), Phrase(text="dark secret")),
        (Owner("c", 0, "restrict", True), Phrase(text="male", allow_echo=True)),
    ]
    phrases = PatternSet(owned)
    assert phrases.echoed("OPEN-secret, dark secret, female") == {0}
    assert phrases.echoed("m a l e") == {2}
    assert PatternSet(owned[1:2]).echoed("dark secret") == frozenset()


def test_what_is_printed_tells_no_phrase() -> None:
    assert "secret" not in repr(patterns(Phrase(text="secret words")))
    phrases = PatternSet([(Owner("t", 0, "restrict", False), Phrase(text="secret words"))])
    assert repr(phrases) == "PatternSet(1 phrases)"


@pytest.mark.parametrize("text", ["Straße", "ﬁn", "Maß"])
@pytest.mark.parametrize("joint", [" ", "-", ". "])
def test_a_letter_that_comes_to_two_is_found_spelled_out(text: str, joint: str) -> None:
    found = PatternSet([(Owner("t", 0, "restrict", False), Phrase(text=text))])
    assert found.finds(f"They wrote {joint.join(text)} on it.")
    assert found.finds(f"They wrote {text} on it.")
