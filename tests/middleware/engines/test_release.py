"""What may leave: laws over every way to cut a text into tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Redact, TokenLogprob
from elision.middleware.engines.release import MARKER_LOGPROB, Release

pieces = st.lists(st.text("abc .", max_size=4), max_size=12)


def entry(text: str) -> TokenLogprob:
    return TokenLogprob(text, -1.0, text.encode())


@given(pieces, st.integers(0, 5))
def test_what_left_and_what_is_held_make_up_the_text(parts: list[str], held: int) -> None:
    release = Release()
    left = ""
    for part in parts:
        release.write(part)
        left += release.take(held)[0]
    whole = "".join(parts)
    assert left == whole[: max(0, len(whole) - held)] or held == 0
    assert left + release.take()[0] == whole


@given(pieces, st.sampled_from(["a", "ab", "abc", "b.", " a"]))
def test_a_stop_text_never_leaves_nor_anything_behind_it(parts: list[str], stop: str) -> None:
    release = Release(stop=(stop,))
    left = ""
    for part in parts:
        release.write(part)
        left += release.take()[0]
        if release.stopped:
            break
    left += release.take()[0] if release.stopped else ""
    whole = "".join(parts)
    assert stop not in left
    assert whole.startswith(left)
    assert release.stopped == (stop in whole)
    if release.stopped:
        assert left == whole[: whole.index(stop)]


def test_text_that_may_still_become_a_stop_text_waits() -> None:
    release = Release(stop=("STOP",))
    release.write("now ST")
    assert release.take()[0] == "now "
    release.write("ART")
    assert release.take()[0] == "START"


def test_the_earliest_of_several_stop_texts_counts() -> None:
    release = Release(stop=("cd", "b"))
    release.write("abcd")
    assert release.take()[0] == "a"


def test_a_redacted_span_leaves_as_its_marker() -> None:
    release = Release()
    release.write("I saw Jane Doe there")
    release.redact(Redact(6, 14, "[redacted]"))
    assert release.take()[0] == "I saw [redacted] there"


def test_overlapping_spans_unite_to_one_marker() -> None:
    release = Release()
    release.write("Jane Doe Smith left")
    release.redact(Redact(0, 8, "#"))
    release.redact(Redact(5, 14, "#"))
    assert release.take()[0] == "# left"


def test_a_span_that_is_not_whole_yet_waits_whole() -> None:
    release = Release()
    release.write("so Jane Doe")
    release.redact(Redact(3, 11, "#"))
    assert release.take(held=4)[0] == "so "
    assert release.take()[0] == "#"


def test_of_a_span_whose_beginning_has_left_the_rest_is_redacted() -> None:
    release = Release()
    release.write("Jane ")
    assert release.take()[0] == "Jane "
    release.write("Doe")
    release.redact(Redact(0, 8, "#"))
    assert release.take()[0] == "#"


def test_dropping_what_is_held_never_takes_back_what_has_left() -> None:
    release = Release()
    release.write("abcdef")
    assert release.take(held=4)[0] == "ab"
    release.drop_held(100)
    assert release.text == "ab"
    assert release.take()[0] == ""


def test_log_probabilities_leave_with_their_text() -> None:
    release = Release()
    release.write("ab", entry("ab"))
    release.write("cd", entry("cd"))
    text, entries = release.take(held=1)
    assert text == "abc"
    assert [e.token for e in entries] == ["ab"]
    assert [e.token for e in release.take()[1]] == ["cd"]


def test_tokens_of_a_redacted_span_are_reported_as_the_marker_alone() -> None:
    release = Release()
    for token in ("I ", "saw ", "Ja", "ne", "!"):
        release.write(token, entry(token))
    release.redact(Redact(6, 10, "#"))
    text, entries = release.take()
    assert text == "I saw #!"
    assert [e.token for e in entries] == ["I ", "saw ", "#", "!"]
    assert entries[2].logprob == MARKER_LOGPROB
    assert entries[2].top == ()


def test_tokens_behind_a_stop_text_are_not_reported() -> None:
    release = Release(stop=("X",))
    release.write("ab", entry("ab"))
    release.write("cXd", entry("cXd"))
    text, entries = release.take()
    assert text == "abc"
    assert [e.token for e in entries] == ["ab", "cXd"]


def test_what_is_dropped_is_not_reported_either() -> None:
    release = Release()
    for token in ("Ja", "ne"):
        release.write(token, entry(token))
    assert release.take(held=4) == ("", ())
    release.drop_held(4)
    release.write("I can't help with that.")
    assert release.take() == ("I can't help with that.", ())


def test_half_a_character_is_reported_with_the_text_it_belongs_to() -> None:
    release = Release()
    release.write("so ", entry("so "))
    release.write("", TokenLogprob("\ufffd", -1.0, b"\xc3"))
    release.write("\xe9", TokenLogprob("\ufffd", -1.0, b"\xa9"))
    assert [e.data for e in release.take(held=1)[1]] == [b"so "]
    release.redact(Redact(3, 4, "#"))
    text, entries = release.take()
    assert text == "#"
    assert [e.token for e in entries] == ["#"]
