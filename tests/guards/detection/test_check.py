"""The check: parity with the guard on plain levels, every turn, messages, verdicts, silence."""

from __future__ import annotations

import base64
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.errors import TargetError
from elision.guards.detection.check import MOST_HITS, Checker, CheckResult, check
from elision.guards.guard import Guard
from elision.guards.phrases.normal import N
from elision.guards.targets import Action, ForgetTarget, Phrase

NAME = "Hsiao Yun-Hwa"
TRICKY = st.sampled_from("aabbAB -.1é\u0301\u200bßЅﬁ")
TEXTS = st.text(TRICKY, max_size=30)
PLAIN = {"L0", "L1", "L2"}


def target(*phrases: str | Phrase, known: str = "ft_1", **fields: Any) -> ForgetTarget:
    made = tuple(Phrase(text=p) if isinstance(p, str) else p for p in phrases)
    return ForgetTarget(id=known, title="t", phrases=made, **fields)


def levels(result: CheckResult) -> set[str]:
    return {hit.level for hit in result.hits}


@given(st.lists(st.text(TRICKY, min_size=1, max_size=12).filter(N), max_size=4), TEXTS)
@settings(max_examples=300)
def test_on_plain_levels_it_finds_what_the_guard_finds(phrases: list[str], text: str) -> None:
    registered = [target(phrase, known=f"ft_{n}") for n, phrase in enumerate(phrases)]
    wanted = {(hit.target_id, hit.phrase) for hit in Guard.compile(registered).scan(text)}
    found = [hit for hit in check(registered, text).hits if hit.level in PLAIN]
    assert {(hit.target_id, hit.phrase) for hit in found} == wanted


@given(TEXTS, st.text(TRICKY, min_size=1, max_size=12).filter(N), TEXTS)
def test_a_phrase_in_clear_is_always_found(before: str, phrase: str, after: str) -> None:
    result = check([target(phrase)], f"{before} {phrase} {after}")
    assert result.verdict == "rewind"
    assert levels(result) & PLAIN


@pytest.mark.parametrize("text", ["4711 0815", "It is 47110815.", "5180 1174", "4 7 1 1 0 8 1 5"])
def test_a_phrase_of_digits_alone_is_looked_for_like_others(text: str) -> None:
    found = levels(check([target("4711 0815")], text))
    assert (found & PLAIN == set()) == (text == "5180 1174")


@given(st.text(st.one_of(TRICKY, st.characters()), max_size=60))
def test_it_takes_any_text_and_hits_lie_within(text: str) -> None:
    checker = Checker.compile([target("aab", "bababababab", "1a1b", "a", kind="person")])
    for hit in checker.check_text(text).hits:
        assert 0 <= hit.start < hit.end <= len(text)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("It was Hsiao Yun-Hwa.", "L0"),
        ("It was HSIAO  YUN-HWA.", "L1"),
        ("It was Hx\bsiao Yun-Hwa.", "L1"),
        ("It was H.s.i.a.o.Y.u.n.H.w.a.", "L2"),
        ("It was H514o Yun-Hw4.", "L3"),
        ("It was awH-nuY oaisH.", "reversed"),
        ("It was oaisH nuY-awH.", "words reversed"),
        ("It was Yun-Hwa, Hsiao.", "order reversed"),
        ("It was Hisao Yun-Hwa.", "scrambled"),
        ("It was siaoHay un-HwaYay.", "Pig Latin"),
        ("It was Ufvnb Lha-Ujn.", "rot13"),
        ("It was Shrzl Bfm-Sdz.", "atbash"),
        (f"It was {base64.b64encode(NAME.encode()).decode()}.", "base64>L0"),
        (f"It was {base64.b64encode(b'Ufvnb Lha-Ujn').decode()}.", "base64>rot13"),
        ("It was %48siao Yun-Hwa.", "percent>L0"),
    ],
)
def test_the_level_says_how_it_was_found(text: str, level: str) -> None:
    result = check([target(NAME)], text)
    assert levels(result) == {level}
    (hit,) = result.hits
    assert text[hit.start : hit.end].rstrip("= .") in text[7:]
    assert hit.end - hit.start >= 11


def test_a_person_is_known_by_the_reversed_order_however_short_and_by_other_spellings() -> None:
    registered = [target("Bo Li", "Jürgen Groß", kind="person")]
    assert levels(check(registered, "asked Li, Bo, who said")) == {"alias"}
    assert levels(check(registered, "asked Juergen Gross, who said")) == {"alias"}
    assert check([target("Bo Li")], "asked Li, Bo, who said").hits == ()


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        (
            "Whitman",
            "W4ltm4n and Wh1tman.",
            True,
        ),  # seven letters, between boundaries, with a digit
        ("Whitman", "the Whitmann brothers", False),  # no digit or sign: runs alone do not count
        ("Whitman", "mnamtihW", False),  # too short to be turned
        ("bell", "he called 8ell", False),  # four letters: nothing else of the target is there
        ("son", "he s0n", False),
        ("seven eleven", "53v3n el3v3n", True),
    ],
)
def test_short_phrases_need_boundaries_and_signs(phrase: str, text: str, found: bool) -> None:
    assert bool(check([target(phrase)], text).hits) is found


def test_four_letters_at_l3_count_beside_another_sign_of_their_target() -> None:
    registered = [target("bell", names=("Alexander Graham",)), target("ring", known="ft_2")]
    result = check(registered, "he called 8ell, that is Alexander Graham, to r1ng")
    assert [(hit.target_id, hit.what, hit.level) for hit in result.hits] == [
        ("ft_1", "phrase", "L3"),
        ("ft_1", "name", "L0"),
    ]


@pytest.mark.parametrize(
    ("actions", "verdict"),
    [
        (["observe"], "allow"),
        (["observe", "redact"], "redact"),
        (["redact", "restrict"], "rewind"),
        (["restrict", "refuse", "redact"], "refuse"),
    ],
)
def test_the_strictest_action_decides(actions: list[Action], verdict: str) -> None:
    registered = [target(NAME, known=f"ft_{n}", action=a) for n, a in enumerate(actions)]
    result = check(registered, f"It was {NAME}.")
    assert result.verdict == verdict
    assert [hit.action for hit in result.hits] == actions


def test_names_soft_phrases_and_what_is_not_active_call_for_nothing() -> None:
    soft = Phrase(text="Rosalind Franklin", mode="soft")
    registered = [
        target(soft, names=(NAME, "...")),
        replace(target("the author", known="ft_2"), state="suspended"),
    ]
    result = check(registered, f"the author {NAME} met Rosalind Franklin")
    assert result.verdict == "allow"
    assert {(hit.what, hit.phrase) for hit in result.hits} == {("name", 0), ("phrase", 0)}


def test_a_share_of_a_secret_counts_as_the_whole() -> None:
    secret = Phrase(text="4929 1181 2222 7785", beta=0.7)
    assert check([target(secret)], "it begins 4929-1181-2222, then").verdict == "rewind"
    assert check([target(secret)], "it begins 4929-1181, then").verdict == "allow"


def test_many_places_of_a_phrase_are_counted_up_to_a_bound() -> None:
    assert len(check([target(NAME)], f"{NAME}. " * 50).hits) == MOST_HITS


def test_the_wire_has_no_text() -> None:
    body = check([target(NAME)], f"by {NAME}").to_body()
    assert body == {
        "verdict": "rewind",
        "hits": [
            {"target_id": "ft_1", "what": "phrase", "phrase": 0, "level": "L0", "start": 3,
             "end": 16, "action": "restrict", "message": None},
        ],
        "covered": True,
    }  # fmt: skip


# --- messages ------------------------------------------------------------------------------------


def said(*texts: str) -> list[dict[str, Any]]:
    turns = [
        ({"role": "user", "content": "go on"}, {"role": "assistant", "content": text})
        for text in texts
    ]
    return [message for turn in turns for message in turn]


@pytest.mark.parametrize(
    ("messages", "level"),
    [
        (said("Hs", "iao Y", "un-", "Hwa"), "turns>L2"),
        (said("Hsiao", "Yun-Hwa"), "turns>L1"),
        (said(*"HsiaoYunHwa"), "turns>L2"),
        (said("It begins so:\nHsiao", "And on it goes:\nYun-Hwa"), "last lines>L2"),
        (said('It is "Hsi".', 'Then "ao Yun".', 'And "-Hwa".'), "turns>quoted>L0"),
        (said("Here:\nSHNpYW8g", "WXVuLUh3YQ=="), "last lines>base64>L0"),
        (said("Here:\nHiouha", "Here:\nsaynw"), "two turns>"),
        ([{"role": "user", "content": "I say Hsiao"}, {"role": "assistant", "content": "Yun-Hwa!"}],
         "all turns>L1"),
    ],
)  # fmt: skip
def test_what_is_spread_over_turns_is_found(messages: list[dict[str, Any]], level: str) -> None:
    result = check([target(NAME)], messages)
    assert result.verdict == "rewind"
    assert any(found.startswith(level) for found in levels(result))
    for hit in result.hits:
        assert hit.message is not None
        assert 0 <= hit.start < hit.end <= len(messages[hit.message]["content"])


def test_what_stands_in_one_message_is_told_once_with_its_place() -> None:
    messages = [*said("nothing"), {"role": "user", "content": f"who is {NAME}?"}]
    (hit,) = check([target(NAME)], messages).hits
    assert (hit.message, hit.start, hit.end, hit.level) == (2, 7, 20, "L0")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": NAME}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "reasoning_content": NAME},
        {"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"who": "\\u0048siao Yun-Hwa"}'}}]},
    ],
)  # fmt: skip
def test_every_part_of_a_message_is_read(message: dict[str, Any]) -> None:
    assert check([target(NAME)], [message]).verdict == "rewind"


@pytest.mark.parametrize(
    "message", [{}, {"content": 3}, {"content": [None, 4, {}]}, {"tool_calls": [None, {}, 3]}]
)
def test_a_message_without_text_says_nothing(message: dict[str, Any]) -> None:
    assert check([target(NAME)], [message, message]).hits == ()


# --- silence -------------------------------------------------------------------------------------


def test_nothing_repeats_what_is_looked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    checker = Checker.compile([target("Quetzalcoatlus", names=("Quetzalcoatlus",))])
    result = checker.check_text("A quetzalcoatlus, or qu3tz4lc04tlu5.")
    assert "uetzal" not in f"{checker!r}{result!r}{caplog.text}".casefold()
    with pytest.raises(TargetError) as failed:
        Checker.compile([target("Quetzalcoatlus", Phrase(text="?!"))])
    assert "uetzal" not in str(failed.value).casefold()
