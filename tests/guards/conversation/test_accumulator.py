"""Extraction by the piece: the joined answers never hold the phrase, and sessions keep no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import ALLOW, REFUSE, Context, Redact, Request, Rewind
from elision.guards.conversation.accumulator import MOST_STATES, Accumulator, Turns
from elision.guards.conversation.hold import AccumulatedHold
from elision.guards.conversation.sessions import SessionStore
from elision.guards.conversation.watch import AccumulatedSession, AccumulatedWatch
from elision.guards.encoded.encoded import Encoded
from elision.guards.phrases.normal import N
from elision.guards.targets import Action, ForgetTarget, Phrase

NAME = "Basil Mahfouz Al-Kuwaiti"
SHORT = "Omar"


def accumulator(*phrases: str, action: Action = "restrict", epoch: int = 1) -> Accumulator:
    texts = tuple(Phrase(text=text) for text in phrases or (NAME, SHORT))
    targets = [ForgetTarget(id="1", title="t", phrases=texts, action=action)]
    return Accumulator(Encoded.compile(targets), epoch)


READER = accumulator()


@dataclass(frozen=True)
class Pieces:
    """A lexicon whose token ids are indices into a list of texts."""

    pieces: tuple[str, ...]

    def write(self, pending: bytes, token: int) -> tuple[str, bytes]:
        return self.pieces[token], b""

    def finish(self, pending: bytes) -> str:
        return ""

    def __len__(self) -> int:
        return len(self.pieces)


def said(turns: Turns, text: str, reader: Accumulator = READER) -> str:
    """Return what of *text* leaves behind *turns*, character by character."""
    hold, out = AccumulatedHold(reader, turns), ""
    for char in text:
        piece, verdict = hold.feed(char)
        out += piece
        if verdict != ALLOW:
            return out
    return out + hold.finish()[0]


def conversation(answers: list[str], reader: Accumulator = READER) -> list[str]:
    turns, left = reader.nothing, list[str]()
    for answer in answers:
        left.append(said(turns, answer, reader))
        turns = reader.after(turns, left[-1])
    return left


FRAMES: dict[str, Callable[[str], str]] = {
    "bare": lambda piece: piece,
    "quoted": lambda piece: f'They are "{piece}".',
    "on a line": lambda piece: f"Here you are:\n{piece}",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("talk", [[], ["The weather is fine today."]])
@given(size=st.integers(1, 12), phrase=st.sampled_from([NAME, SHORT]))
def test_pieces_of_any_size_never_join_to_the_phrase(
    frame: str, talk: list[str], size: int, phrase: str
) -> None:
    pieces = [phrase[at : at + size] for at in range(0, len(phrase), size)]
    if len(pieces) == 1:
        return  # in clear, which the phrase mask forbids
    answers = [turn for piece in pieces for turn in (FRAMES[frame](piece), *talk)]
    left = conversation(answers)
    to_the_point = left[:: 1 + len(talk)]
    full = [FRAMES[frame](piece) for piece in pieces]

    assert to_the_point[:-1] == full[:-1]
    assert to_the_point[-1] != full[-1]


@given(st.lists(st.text(max_size=30), max_size=6))
def test_ordinary_turns_leave_unchanged(answers: list[str]) -> None:
    if N(SHORT) in N("".join(answers)):
        return

    assert conversation(answers) == answers


@given(
    st.lists(st.sampled_from(["Bas", "il Mah", "fouz ", "Al-", "Kuw", "aiti", "no"]), max_size=9)
)
def test_the_joined_turns_hold_the_phrase_in_no_choice_of_turns(answers: list[str]) -> None:
    left = conversation(answers)

    assert N(NAME) not in N("".join(left))


def test_a_turn_in_clear_is_the_masks_business() -> None:
    assert conversation([f"It is {NAME}."]) == [f"It is {NAME}."]


def test_the_states_of_many_turns_stay_few() -> None:
    turns = READER.nothing
    for n in range(300):
        turns = READER.after(turns, NAME[n % 7 : n % 7 + 3])

    assert max(len(states) for view in turns[1:] for states in view) <= MOST_STATES + 1


def test_a_request_is_read_by_its_assistant_turns_the_continued_one_aside() -> None:
    messages = (
        {"role": "assistant", "content": "Basil Mahfouz"},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": " Al-Kuw"},
    )
    assert said(READER.over(Request(messages=messages)), "aiti") == "ait"
    continued = READER.over(Request(messages=messages, continue_final=True))
    assert said(continued, "aiti") == "aiti"
    hold = AccumulatedHold(READER, continued, before=" Al-Kuw")
    assert hold.feed("aiti")[1] == REFUSE


def session(reader: Accumulator, *pieces: str, before: str = NAME[:12]) -> AccumulatedSession:
    recipe = AccumulatedWatch(accumulator=reader, turns=reader.after(reader.nothing, before))
    return recipe.begin(Context(lexicon=Pieces(pieces), vocab_size=len(pieces)))


def test_the_token_that_would_complete_it_is_banned_at_its_place() -> None:
    state = session(READER, NAME[12:17], NAME[17:])

    assert state.advance(0).verdict == ALLOW
    assert state.advance(0).held == 0
    assert state.advance(0).advance(1).verdict == Rewind(1, frozenset({1}))
    assert state.advance(1).verdict == ALLOW


def test_a_short_phrase_waits_for_the_end_of_its_word() -> None:
    state = session(READER, "ar", "ia", " x", before="Om").advance(0)

    assert state.held == 2
    assert state.verdict == ALLOW
    assert state.advance(1).held == 0
    assert state.advance(1).finish().verdict == ALLOW
    assert state.advance(2).verdict == Rewind(0, frozenset({0}))
    assert state.finish().verdict == Rewind(0, frozenset({0}))


def test_the_other_actions_do_what_they_say() -> None:
    rest = NAME[12:]
    assert session(accumulator(action="refuse"), rest).advance(0).verdict == REFUSE
    redacted = session(accumulator(action="redact"), rest).advance(0).verdict
    assert redacted == Redact(0, len(rest), "[redacted]")
    counted = session(accumulator(action="observe"), rest).advance(0)
    assert counted.verdict == ALLOW
    assert counted.tally == {"guard.observed_turns": 1}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_goes_on_for_an_hour_after_its_last_reply() -> None:
    clock = Clock()
    store = SessionStore(clock=clock)
    store.save("t", "s", READER, NAME[:12])
    clock.now = 3599.0
    turns = store.load("t", "s", epoch=1)
    assert turns is not None
    assert said(turns, NAME[12:]) == NAME[12:-1]
    store.save("t", "s", READER, "and so on")
    clock.now = 7000.0
    assert store.load("t", "s", epoch=1) is not None
    clock.now = 7199.0
    assert store.load("t", "s", epoch=1) is None
    assert len(store) == 0


def test_a_session_belongs_to_its_tenant_and_to_its_epoch() -> None:
    store = SessionStore()
    store.save("a", "s", READER, NAME[:12])

    assert store.load("b", "s", epoch=1) is None
    assert store.erase("b") == 0
    assert store.load("a", "s", epoch=2) is None
    assert store.load("a", "s", epoch=1) is None  # what is out of date is dropped


def test_the_oldest_session_goes_first_and_no_text_is_kept() -> None:
    store = SessionStore(limit=2)
    for name in ("one", "two", "three"):
        store.save("t", name, READER, "Zyxomma petiolatum is a dragonfly")

    assert len(store) == 2
    assert store.load("t", "one", epoch=1) is None
    kept = repr(store.load("t", "three", epoch=1)) + repr(vars(store))
    assert "xomma" not in kept.lower()
    assert "three" not in kept
    assert store.erase("t") == 2


def test_two_replies_that_end_beside_each_other_are_both_added() -> None:
    store = SessionStore()
    before = store.load("t", "s", epoch=1)
    assert before is None
    store.save("t", "s", READER, NAME[:12])
    store.save("t", "s", READER, NAME[12:20])

    turns = store.load("t", "s", epoch=1)
    assert turns is not None
    assert said(turns, NAME[20:]) == NAME[20:-1]


def test_forged_turns_concern_only_the_request_that_has_them() -> None:
    forged = Request(messages=({"role": "assistant", "content": NAME[:-1]},))
    store = SessionStore()
    assert said(READER.over(forged), "i am here") == ""
    store.save("t", "s", READER, "something else")

    turns = store.load("t", "s", epoch=1)
    assert turns is not None
    assert said(turns, "i am here") == "i am here"
    assert said(turns.united(READER.over(forged)), "i am here") == ""
