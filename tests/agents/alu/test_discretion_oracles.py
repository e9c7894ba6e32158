"""What an asker could try on hidden names: other spellings, other people's names, his clock."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.alu.name_parts import FUNCTION_WORDS, GIVEN
from elision.agents.alu.overlay import respelt
from elision.agents.alu.pseudonyms import Pseudonyms
from elision.agents.alu.revealing import without_last_word
from elision.agents.alu.substitution import Substituter, Substitution
from elision.contract import Message, text_of
from elision.guards.detection.check import Checker
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget

LISTED = "Dalia Sandoval"


def names(
    *registered: str, key: int = 0, kind: str = "person", action: str = "restrict"
) -> Substituter:
    targets = [
        ForgetTarget(id=str(n), title="t", kind=kind, names=(one,), action=action)  # type: ignore[arg-type]
        for n, one in enumerate(registered)
    ]
    secret = str(key).encode()
    return Substituter(
        targets,
        Checker.compile(targets),
        digest=lambda data: hmac.digest(secret, data, hashlib.sha256).hex(),
    )


def user(content: object) -> Message:
    return {"role": "user", "content": content}


def hidden(by: Substituter, text: str) -> tuple[str, Substitution]:
    found = by.hide([user(text)])
    return text_of(found.messages[0]), found


@pytest.mark.parametrize(
    "asked",
    [
        "Who is Dalia M. Sandoval?",
        "Who is the person with first name Dalia and last name Sandoval?",
        "Who is Ms Sandoval (Dalia)?",
        "Who are Dalia and Pedro Sandoval?",
        "Who is Dalia 'Dee' Sandoval?",
        "Tell me about Dalia Sandoval. Sandoval was born where?",
        "About Dalia Sandoval: is that person called sandoval, or SANDOVAL?",
        "SANDOVAL, dalia",
        "Wer ist Dalia Sandoval? Was ist Sandovals Buch, und Dalias?",
    ],
)
def test_no_part_of_a_name_reaches_the_model_in_ordinary_spellings(asked: str) -> None:
    for key in range(5):
        now, found = hidden(names(LISTED, key=key), asked)
        assert "dalia" not in now.casefold()
        assert "sandoval" not in now.casefold()
        assert found.reveal(now) == asked


@given(st.integers(0, len("Who is Dalia Sandoval?")))
def test_a_name_split_over_text_parts_is_read_as_one(cut: int) -> None:
    asked = f"Who is {LISTED}?"
    content = [{"type": "text", "text": asked[:cut]}, {"type": "text", "text": asked[cut:]}]
    found = names(LISTED).hide([user(content)])
    assert found.n_names == 1
    assert "Dalia" not in text_of(found.messages[0])
    assert found.reveal(text_of(found.messages[0])) == asked


def test_a_name_split_over_turns_is_hidden_and_a_stranger_is_not() -> None:
    talk = [user("Her first name is Dalia."), user("Her surname is Sandoval. Who is she?")]
    found = names(LISTED).hide(talk)
    assert found.n_names == 1
    assert not {"Dalia", "Sandoval"} & {*" ".join(map(text_of, found.messages)).split()}
    for stranger in ("Who is Dalia Kovacs?", "Who is Pedro Sandoval?"):
        assert hidden(names(LISTED), stranger)[0] == stranger


@pytest.mark.parametrize("pair", [("Harold Vane", "Herman Voss"), ("Kai Lee", "Kim Lux")])
def test_two_names_of_one_conversation_never_share_a_word(pair: tuple[str, str]) -> None:
    asked = f"Compare {pair[0]} and {pair[1]}."
    for key in range(60):
        now, found = hidden(names(*pair, key=key), asked)
        assert found.n_names == 2
        assert found.reveal(now) == asked


def test_a_name_that_two_share_stands_for_both_alike() -> None:
    asked = "Compare Harold Vane and Harold Mott; Vane is older than Mott."
    now, found = hidden(names("Harold Vane", "Harold Mott"), asked)
    assert len({now.split()[1], now.split()[4]}) == 1
    assert found.reveal(now) == asked


def stand_in(by: Substituter, name: str) -> tuple[str, str, Substitution]:
    now, found = hidden(by, f"Who is {name}?")
    given_name, family = now.removeprefix("Who is ").removesuffix("?").split()
    return given_name, family, found


def given_by_list(name: str) -> tuple[str, str, Substitution]:
    """Return a stand-in whose given name is one that real people bear."""
    for key in range(50):
        first, family, found = stand_in(names(name, key=key), name)
        if first.casefold() in GIVEN:
            return first, family, found
    raise AssertionError("every given name was made up")


def test_a_given_name_comes_back_alone_but_not_as_another_persons() -> None:
    first, family, found = given_by_list("Harold Vane")
    for other in (
        f"{first} Hughes flew it.",
        f"It was King {first} who flew it.",
        f"Names with H: Hugo, {first}, Hubert.",
        f"{first}, Hugo, Hubert.",
        f"- Hugo\n- Hubert\n- {first}\n",
        f"{first.lower()}s are many.",
    ):
        assert found.reveal(other) == other
    assert (
        found.reveal(f"Does {first} write? {first}'s books.")
        == "Does Harold write? Harold's books."
    )
    assert found.reveal(f"Her brother Otto {family}.") == "Her brother Otto Vane."


def test_a_word_in_small_letters_is_not_a_name_unless_it_was_asked_so() -> None:
    _, family, found = stand_in(names(LISTED), LISTED)
    assert found.reveal(f"the {family.lower()} of proof") == f"the {family.lower()} of proof"
    now, asked_small = hidden(names(LISTED), LISTED.lower())
    assert asked_small.reveal(f"who is {now.split()[1]}?") == "who is sandoval?"


def test_a_name_comes_back_with_the_accents_that_the_caller_wrote() -> None:
    for asked in ("Who is Jose Lopez?", "Who is José López?", "who is jose lopez?"):
        now, found = hidden(names("José García López"), asked)
        assert found.n_names == 1
        assert found.reveal(now) == asked
        assert found.reveal(now.title()) == asked.title()


def test_no_word_of_the_conversation_is_invented() -> None:
    everybody = ", ".join(name.title() for name in GIVEN if name[0] == "h")
    now, found = hidden(names("Harold Vane"), f"Is Harold Vane among {everybody}?")
    first = now.split()[1]
    assert first.casefold() not in GIVEN
    assert found.reveal(now) == f"Is Harold Vane among {everybody}?"


def test_an_invented_surname_is_no_word_and_nobody_known() -> None:
    known = {"wilson", "miller", "keller", "carson", "salmon", "warden", "burden", "garland"}
    for word in ("Bailey", "Wilton", "Sutton", "Gibson", "Milton", "Carver", "Kepler", "Li", "Wu"):
        for key in range(60):
            digest = hashlib.sha256(f"{key}".encode())
            made = Pseudonyms(
                lambda data, d=digest: hashlib.sha256(d.digest() + data).hexdigest()  # type: ignore[misc]
            ).word(word, "family")
            assert made not in known | FUNCTION_WORDS | common_words()
            assert N(made) != N(word)
            assert len(made) >= 4


def test_a_spelling_by_radio_comes_back_and_one_by_initials_is_left() -> None:
    spoken = {"d": "Delta", "o": "Oscar", "x": "Xray"}
    text = "Say Delta Oscar Xray now."
    assert respelt(text, 4, 17, "Dox", "Dod") == (4, 20, "Delta Oscar Delta")
    assert respelt(text, 4, 17, "Dox", "Do") == (4, 20, " ".join((spoken["d"], spoken["o"])))
    assert respelt("Dogs often yawn.", 0, 15, "Doy", "Dod") is None
    first, family, found = stand_in(names(LISTED), LISTED)
    lines = "\n".join(f"{letter.upper()}ows of it" for letter in first + family)
    assert found.reveal(lines) == lines


def test_what_a_reply_was_broken_off_in_is_no_half_of_a_name() -> None:
    assert without_last_word("I know Dagmar Sal") == "I know Dagmar"
    assert without_last_word("Dag") == ""
    assert without_last_word("我认识杜嘉") == "我"
    now, found = hidden(names("The Silent Harbor", kind="work"), "Who wrote The Silent Harbor?")
    start = " ".join(now.removesuffix("?").split()[2:4])
    assert found.reveal(f"I know {start}", cut=True) == "I know The Silent"


def test_targets_that_only_observe_are_not_hidden() -> None:
    asked = f"Who is {LISTED}?"
    assert hidden(names(LISTED, action="observe"), asked)[0] == asked


def seconds(work: Callable[[], object]) -> float:
    """Return the least time on this thread of several runs."""
    took = []
    for _ in range(7):
        begun = time.thread_time()
        work()
        took.append(time.thread_time() - begun)
    return min(took)


def test_many_mentions_of_a_registered_name_take_no_longer_than_of_another() -> None:
    """By turns, on a machine that may be busy; it was nineteen times as long once."""
    by = names(LISTED)
    ratios = []
    for _ in range(5):
        took = [
            seconds(lambda n=name: by.hide([user(f"{n} is here. " * 200)]))  # type: ignore[misc]
            for name in (LISTED, "Dalia Kovacs")
        ]
        ratios.append(took[0] / took[1])
    assert 0.5 < sorted(ratios)[2] < 2


def test_every_mention_goes_however_many_there_are_in_disguise() -> None:
    now, found = hidden(names(LISTED), f"{LISTED}. " * 300 + "D-a-l-i-a-S-a-n-d-o-v-a-l. " * 40)
    assert not any(
        hit
        for hit in Checker.compile([ForgetTarget(title="t", kind="person", names=(LISTED,))])
        .check_text(now)
        .hits
    )
    assert found.n_names == 1
