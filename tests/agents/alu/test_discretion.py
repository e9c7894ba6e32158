"""Hiding registered names: what the model is asked, and what is put back."""

from __future__ import annotations

import base64
import codecs
import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.alu.covering import WORD
from elision.agents.alu.overlay import overlaid
from elision.agents.alu.pseudonyms import Pseudonyms
from elision.agents.alu.substitution import Substituter, Substitution
from elision.contract import Message, text_of
from elision.guards.detection.check import Checker
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Phrase

AUTHOR = "Basil Mahfouz Al-Kuwaiti"
BANNED = "Carmen Montenegro"
TARGETS = (
    ForgetTarget(id="a", title="t", kind="person", names=(AUTHOR, "Nonette Noneau"),
                 phrases=(Phrase(text="Promise by the Seine"),)),
    ForgetTarget(id="b", title=BANNED, kind="person", phrases=(Phrase(text=BANNED),)),
    ForgetTarget(id="c", title="t", kind="work", names=("The Silent Harbor",)),
    ForgetTarget(id="d", title="t", kind="person", names=("蕭雲華",)),
    ForgetTarget(id="e", title="t", kind="organisation", names=("Vintara Robotics GmbH",)),
    ForgetTarget(id="f", title="t", kind="person", names=("Мария Зеленова",)),
    ForgetTarget(id="g", title="t", kind="fact", names=("the Lisbon affair",)),
)  # fmt: skip
CHECKER = Checker.compile(TARGETS)
MAY_RETURN = (AUTHOR, "Nonette Noneau", "The Silent Harbor", "蕭雲華", "Vintara Robotics GmbH",
              "Мария Зеленова")  # fmt: skip


def keyed(key: bytes) -> Substituter:
    return Substituter(
        TARGETS, CHECKER, digest=lambda data: hmac.digest(key, data, hashlib.sha256).hex()
    )


NAMES = keyed(b"one")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def hidden(text: str) -> tuple[str, Substitution]:
    found = NAMES.hide([user(text)])
    return text_of(found.messages[0]), found


def named(text: str) -> set[str]:
    return {hit.target_id for hit in CHECKER.check_text(text).hits if hit.what == "name"}


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "small": str.lower,
    "over lines": lambda name: name.replace(" ", "\n"),
    "letter by letter": lambda name: "-".join(name.replace(" ", "").replace("-", "")),
    "backwards": lambda name: name[::-1],
    "rot13": lambda name: codecs.encode(name, "rot13"),
    "base64": lambda name: base64.b64encode(f"asked about {name} here".encode()).decode(),
    "hex": lambda name: f"asked about {name} here".encode().hex(),
    "full width": lambda name: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_name_is_left_in_any_spelling_and_what_is_left_is_written_alike(spelling: str) -> None:
    asked = f"Who is {SPELLINGS[spelling](AUTHOR)}? Tell me."
    now, found = hidden(asked)
    assert not named(now)
    assert now != asked
    assert found.n_names >= 1
    assert found.reveal(now) == asked


_fillers = st.sampled_from(
    ["Who is {}?", "tell me about {}'s books", "({})", "{}: born where?", "I met {} once.", "«{}»"]
)


@given(st.lists(st.tuples(_fillers, st.sampled_from(MAY_RETURN)), min_size=1, max_size=4))
def test_what_was_hidden_comes_back_and_nothing_else_changes(
    parts: list[tuple[str, str]],
) -> None:
    text = "\n".join(form.format(name) for form, name in parts)
    now, found = hidden(text)
    assert not named(now)
    assert found.reveal(now) == text


@given(st.text(max_size=60))
def test_a_text_without_names_stays_and_so_does_its_reply(text: str) -> None:
    now, found = hidden(text)
    if not named(text):
        assert now == text
        assert found.reveal(text) == text


def test_an_invented_name_keeps_words_script_length_and_initials() -> None:
    for name in MAY_RETURN:
        now, _ = hidden(name)
        old, new = WORD.findall(name), WORD.findall(now)
        assert len(new) == len(old)
        assert [len(word) for word in new[1:]] == [len(word) for word in old[1:]]
        assert abs(len(new[0]) - len(old[0])) < 3
        if name.isascii():
            assert [word[0] for word in new] == [word[0] for word in old]
            assert [word.istitle() for word in new] == [word.istitle() for word in old]
    assert all("\u0400" <= char <= "\u04ff" for char in hidden("Мария Зеленова")[0] if char != " ")
    assert all("\u4e00" <= char <= "\u9fff" for char in hidden("蕭雲華")[0])


def test_one_name_is_always_asked_about_under_the_same_one_and_only_the_key_tells_which() -> None:
    again = text_of(keyed(b"one").hide([user(AUTHOR)]).messages[0])
    other = text_of(keyed(b"two").hide([user(AUTHOR)]).messages[0])
    assert hidden(AUTHOR)[0] == again
    assert other not in {again, AUTHOR}


def test_different_names_are_asked_about_under_different_ones() -> None:
    invented = {hidden(name)[0] for name in MAY_RETURN}
    assert len(invented) == len(MAY_RETURN)


def test_a_reply_names_the_registered_one_in_whole_or_by_a_word_in_any_case() -> None:
    now, found = hidden(f"Who is {AUTHOR}?")
    given, family = now.removeprefix("Who is ").split(" ")[:2]
    reply = f"{given} {family} is unknown to me. Mr. {family}'s work, {family.upper()} or {given}."
    assert found.reveal(reply) == (
        "Basil Mahfouz is unknown to me. Mr. Mahfouz's work, MAHFOUZ or Basil."
    )


def test_a_name_that_is_a_phrase_never_comes_back() -> None:
    now, found = hidden(f"Who is {BANNED}? And {BANNED.upper()}'s books?")
    said = found.reveal(f"{now} I do not know. Who is it?")
    assert "carmen" not in said.casefold()
    assert "montenegro" not in said.casefold()
    assert said.startswith("Who is that person?")
    assert CHECKER.check_text(said).verdict == "allow"
    backwards = found.reveal(f"It reads {now.removeprefix('Who is ').split('?')[0][::-1]}.")
    assert CHECKER.check_text(backwards).verdict == "allow"


def test_a_surname_alone_counts_once_the_name_was_said_and_a_neighbours_never() -> None:
    talk = [
        user(f"Who is {AUTHOR}?"),
        {"role": "assistant", "content": "I cannot say."},
        user("Did Mahfouz write? What of Mrs. Mahfouz, Ibrahim Mahfouz and Mahfouz Ibrahim?"),
    ]
    found = NAMES.hide(talk)
    last = text_of(found.messages[2])
    assert last.count("Mahfouz") == 2
    assert "Ibrahim Mahfouz and Mahfouz Ibrahim" in last
    assert "Did Mahfouz" not in last
    assert found.reveal(last) == text_of(talk[2])
    assert NAMES.hide(talk[2:]).messages == (talk[2],)


def test_only_text_parts_change_and_what_is_not_text_stays() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,x"}}
    message = {"role": "user", "name": "n", "content": [{"type": "text", "text": AUTHOR}, image]}
    found = NAMES.hide([message, {"role": "assistant", "content": None}])
    parts = found.messages[0]["content"]
    assert parts[1] == image
    assert not named(parts[0]["text"])
    assert found.messages[0]["name"] == "n"
    assert found.messages[1] == {"role": "assistant", "content": None}


def test_a_fact_is_nobody_whose_name_could_be_hidden() -> None:
    assert hidden("What was the Lisbon affair?")[0] == "What was the Lisbon affair?"


def test_an_invented_name_is_neither_registered_nor_an_ordinary_word() -> None:
    taken = frozenset({"banre"})
    names = Pseudonyms(lambda data: hashlib.sha256(data).hexdigest(), taken=taken)
    words = [f"{a}{b}" for a in ("ba", "mo", "sil", "kar") for b in ("sil", "tan", "ner", "dor")]
    invented = {word: names.word(word, "family") for word in words}
    assert not {*invented.values()} & taken
    assert all(N(new) != N(old) for old, new in invented.items())
    assert names.word("of", "family") == "of"
    assert names.word("j", "given") == "j"


def test_what_cannot_be_laid_letter_by_letter_stands_plainly() -> None:
    assert overlaid("B-A-S", "Bas", "Tom") == "T-O-M"
    assert overlaid("saB", "Bas", "Tom") == "moT"
    assert overlaid("BAS", "Bas", "Thomas") == "THOMAS"
    assert overlaid("B45", "Bas", "Tom") == "TOM"


def test_no_repr_shows_a_name() -> None:
    now, found = hidden(AUTHOR)
    shown = f"{NAMES!r} {found!r} {found._back!r} {found._back._covers!r}"  # type: ignore[union-attr]
    assert not named(shown)
    assert now not in shown
