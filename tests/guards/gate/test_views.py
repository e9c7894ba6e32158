"""Views of prompts: everything lies in one, and what was seen once is seen again."""

from __future__ import annotations

import time
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from elision.guards.gate.views import Turn, ViewPolicy, make_views

WORDS = st.sampled_from(
    "ada wrote books. Why? how: the sea, 1. (b) night\nlong Dr. café! 漢字 東京。 a-b so".split(" ")
)
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
TURNS = st.builds(Turn, st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS)
CHATS = st.lists(TURNS, max_size=5)
WIDE = ViewPolicy(max_views=100_000)


def user(text: str) -> list[Turn]:
    return [Turn("user", text)]


def squeezed(text: str) -> str:
    return " ".join(text.split())


# --- laws ----------------------------------------------------------------------------------------


@given(CHATS)
def test_every_view_is_a_slice_of_the_prompt_and_there_are_few(turns: list[Turn]) -> None:
    views = make_views(turns)
    prompt = squeezed("\n".join(turn.text for turn in turns))
    assert len(views.texts) == len(set(views.texts)) <= 64
    assert all(text and text in prompt for text in views.texts)


@given(CHATS)
def test_without_a_limit_every_word_is_in_a_view(turns: list[Turn]) -> None:
    views = make_views(turns, policy=WIDE)
    assert views.covered
    seen = {word for text in views.texts for word in text.split()}
    assert {word for turn in turns for word in turn.text.split()} <= seen


@given(CHATS)
def test_what_is_said_to_be_covered_is(turns: list[Turn]) -> None:
    numbers = accumulate((len(turn.text.split()) for turn in turns), initial=0)
    numbered = [
        Turn(turn.role, " ".join(f"w{first + n}" for n in range(len(turn.text.split()))))
        for first, turn in zip(numbers, turns, strict=False)
    ]
    views = make_views(numbered, policy=ViewPolicy(max_views=5))
    seen = {word for text in views.texts for word in text.split()}
    every = {word for turn in numbered for word in turn.text.split()}
    assert views.covered == (every <= seen)


@given(CHATS, TEXTS)
def test_the_views_of_a_conversations_beginning_are_among_those_of_the_rest(
    later: list[Turn], question: str
) -> None:
    beginning = [Turn("system", "Be kind to her."), Turn("user", question)]
    first = make_views(beginning, policy=WIDE)
    whole = make_views([*beginning, *later], policy=WIDE)
    assert set(first.texts) <= set(whole.texts)


@given(CHATS)
def test_the_same_prompt_has_the_same_views(turns: list[Turn]) -> None:
    assert make_views(turns) == make_views(list(turns))


# --- examples ------------------------------------------------------------------------------------


def test_a_short_request_has_three_views() -> None:
    turns = [Turn("system", "You are a helpful assistant."), *user("What did Ada Lane write?")]
    assert make_views(turns).texts == (
        "You are a helpful assistant. What did Ada Lane write?",
        "What did Ada Lane write?",
        "You are a helpful assistant.",
    )


def test_enumerated_questions_clauses_and_lines_are_views_of_their_own() -> None:
    text = (
        "Answer these. 1. Who is Ada Lane? 2) Where was she born? (c) And what of Eve?\n"
        '- Does she sing well\nNow then: what is her name? "Who are you?" he said to me.'
    )
    views = make_views(user(text)).texts
    for part in (
        "Who is Ada Lane?",
        "Where was she born?",
        "And what of Eve?",
        "Does she sing well",
        "what is her name?",
        "Now then: what is her name?",
        '"Who are you?"',
        "he said to me.",
    ):
        assert part in views


def test_a_question_between_paragraphs_is_found_by_itself() -> None:
    filler = "It rained all day and the river rose above its banks near the old mill. " * 8
    assert (
        "Who wrote the tide tables?"
        in make_views(user(f"{filler}Who wrote the tide tables? {filler}")).texts
    )


def test_a_long_text_without_stops_is_seen_through_windows() -> None:
    words = [f"w{n}" for n in range(100)]
    views = make_views(user(" ".join(words)))
    assert views.texts[0] == " ".join(words[:24])
    assert " ".join(words[8:32]) in views.texts
    assert " ".join(words[76:]) in views.texts
    assert views.covered


def test_text_without_spaces_is_cut_into_windows_too() -> None:
    views = make_views(user("東京都の作家は誰ですか" * 40))
    assert views.covered
    assert max(map(len, views.texts)) <= 48


def test_beyond_the_limit_what_looks_like_a_probe_is_kept() -> None:
    words = [f"w{n}" for n in range(4_000)]
    words[2_345] = "Zanzibar"
    views = make_views(user(" ".join(words)), salience={"zanzibar": 1.0})
    assert len(views.texts) == 64
    assert not views.covered
    assert any("Zanzibar" in text for text in views.texts)
    assert not any("Zanzibar" in text for text in make_views(user(" ".join(words))).texts)


def test_a_prompt_that_repeats_itself_is_covered_by_one_view_of_it() -> None:
    assert make_views(user("Say it once more, please. " * 400)).covered


def test_readings_get_views_and_too_many_of_them_are_admitted() -> None:
    def reversed_too(text: str) -> list[str]:
        return [text[::-1]]

    views = make_views(user("?ti etorw ohW"), readings=reversed_too)
    assert views.texts == ("?ti etorw ohW", "Who wrote it?")
    assert views.documents == views.texts
    assert views.covered
    flood = make_views(user("x"), readings=lambda text: (f"{n} x" for n in range(1_000)))
    assert not flood.covered


def test_nothing_has_no_views() -> None:
    for turns in ([], user(""), user(" \n "), user("\u00a0")):
        views = make_views(turns)
        assert views.texts == ()
        assert views.covered


def test_a_turns_text_is_not_in_its_repr() -> None:
    assert "quokka" not in repr(Turn("user", "quokka"))


def test_a_hundred_thousand_characters_take_a_fraction_of_a_second() -> None:
    text = "the quick brown fox, jumps: over 1. the lazy dog. " * 2_000
    times = []
    for _ in range(2):
        start = time.perf_counter()
        make_views(user(text), salience={"fox": 1.0})
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0
