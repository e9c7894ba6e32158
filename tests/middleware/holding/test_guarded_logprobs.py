"""Log-probabilities under guard: they leave with their text, and no alternative spells a phrase."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import REFUSE, Alternative, Delta, Plan, Request, TokenLogprob
from elision.guards.phrases.holdback import REDACTED
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.probe import Probe
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine
from elision.testing.laws import check_never_leaks

PHRASES = ("Basil Mahfouz", "Paris", "Ødegård")
HI = ({"role": "user", "content": "Tell me."},)
ACTIONS: tuple[Action, ...] = ("restrict", "redact", "refuse")
LIKELY = ("Mahfouz", " Mahfouz", "ouz", "is", "Paris", "Basil Mahfouz", "rd", "x", "\u00e5rd")


def defence(action: Action, profile: str = "plain", passages: tuple[str, ...] = ()) -> Defence:
    said = tuple(Phrase(text=text) for text in PHRASES)
    target = ForgetTarget(id="t", title="x", phrases=said, action=action, passages=passages)
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES[profile], rules=rules)


RULES = {action: defence(action) for action in ACTIONS}


def leaving(
    pieces: str | Sequence[str | Delta], action: Action = "redact", *, every: int = 3
) -> list[Delta]:
    async def ask() -> list[Delta]:
        who = TextEngine(pieces, every=every, likely=lambda _: LIKELY)
        plan = Plan(request=Request(messages=HI, logprobs=9))
        replies = guarded_replies(who, plan, RULES[action], refusal="No.")
        return [delta async for delta in replies]

    return asyncio.run(ask())


bits = st.sampled_from(
    ["Basil", " Mahf", "Mahfouz", "ouz", " ", "Par", "is", "Paris", "Ø", "degår", "d", "the ", "."]
)


@pytest.mark.parametrize("action", ACTIONS)
@given(st.lists(bits, max_size=7))
@settings(max_examples=30)
def test_neither_tokens_nor_alternatives_spell_a_phrase(action: Action, pieces: list[str]) -> None:
    deltas = leaving(pieces, action)
    check_never_leaks(deltas, PHRASES)

    said = told = ""
    for delta in deltas:
        said += delta.text
        told += "".join(entry.token for entry in delta.logprobs)
        assert len(told.replace(REDACTED, "")) <= len(said), "none leaves before its text"
    if action != "redact" and deltas[-2].finish == "stop":
        assert told == said


def test_alternatives_that_spell_no_phrase_stay() -> None:
    deltas = leaving(["Basil", " and"])
    entries = [entry for delta in deltas for entry in delta.logprobs]
    named = [[other.token for other in entry.top] for entry in entries]

    assert named[0] == ["Mahfouz", " Mahfouz", "ouz", "is", "rd", "x", "\u00e5rd"]
    assert "Mahfouz" not in named[1]
    assert " Mahfouz" not in named[1]
    assert "x" in named[1]


def test_a_redacted_span_leaves_one_marker_in_the_place_of_its_entries() -> None:
    entries = [e for d in leaving("To Basil Mahfouz, my dear.") for e in d.logprobs]
    tokens = [entry.token for entry in entries]

    assert tokens.count(REDACTED) == 1
    assert entries[tokens.index(REDACTED)].logprob == -9999.0
    assert "".join(tokens).endswith("y dear.")


def test_what_is_told_of_other_text_than_was_written_does_not_leave() -> None:
    false = TokenLogprob("Paris", -1.0, b"Paris")
    disguised = TokenLogprob("Paris", -1.0, b"well")
    deltas = leaving([Delta(text="well", logprobs=(false,)), "so"])
    other = leaving([Delta(text="well", logprobs=(disguised,))])

    assert [e.token for d in deltas for e in d.logprobs] == [REDACTED, "so"]
    assert [e.token for d in other for e in d.logprobs] == ["well"]


def test_an_alternative_is_read_by_its_name_as_by_its_bytes() -> None:
    top = (Alternative("Paris", -2.0, b"x"), Alternative("x", -2.0, b"Paris"))
    entry = TokenLogprob("a", -1.0, b"a", top)
    deltas = leaving([Delta(text="a", logprobs=(entry,))])

    assert [e.top for d in deltas for e in d.logprobs] == [()]


def test_entries_of_half_characters_leave_with_the_whole() -> None:
    halves = [TokenLogprob("\ufffd", -1.0, bytes([byte])) for byte in "å".encode()]
    pieces = [Delta(logprobs=(halves[0],)), Delta(text="å", logprobs=(halves[1],)), "!"]
    deltas = leaving([pieces[0], pieces[1], "!"])
    told = [entry.data for delta in deltas for entry in delta.logprobs]

    assert b"".join(told) == "å!".encode()
    assert not deltas[0].logprobs or deltas[0].text


def test_a_half_character_that_an_alternative_completes_is_read_with_it() -> None:
    head, tail = "å".encode()[:1], "å".encode()[1:]
    other = Alternative("\ufffdrd", -1.0, tail + b"rd")
    entries = (
        TokenLogprob("\ufffd", -1.0, head),
        TokenLogprob("\ufffd", -1.0, tail, (other, replace(other, data=tail))),
    )
    deltas = leaving(["Ødeg", Delta(text="å", logprobs=entries), "s"])
    told = [entry for delta in deltas for entry in delta.logprobs]

    assert [len(entry.top) for entry in told if entry.data == tail] == [1]


@pytest.mark.parametrize("profile", ["plain", "guarded"])
@given(st.lists(bits, max_size=6).map("".join), bits, st.integers(0, 20))
@settings(max_examples=40)
def test_a_probe_allows_what_a_hold_would_let_go(
    profile: str, text: str, more: str, at: int
) -> None:
    under = PROBED[profile]
    layers = asyncio.run(under.layers(Request(messages=HI)))
    probe = Probe(layers, before=text[:at])
    probe.read(text[at:])
    hold = layers.layers[0].open(text[:at], json=False)
    if hold.feed(text[at:])[1] == REFUSE:
        return
    refused = REFUSE in (hold.feed(more)[1], hold.finish()[1])

    assert not (refused and probe.allows(more))
    assert refused or profile == "guarded" or probe.allows(more)


PROBED = {name: defence("restrict", name) for name in ("plain", "guarded")}


def test_an_alternative_that_completes_a_passage_or_an_encoding_is_omitted() -> None:
    passage = "the quick brown fox jumps over the lazy dog while seven wizards quietly brew tea"
    under = defence("restrict", "guarded", (f"{passage} in the old mill by the sea",))
    layers: Any = asyncio.run(under.layers(Request(messages=HI)))
    runs = under.rules.verbatim.spoken.n_words
    words = passage.split()
    probe = Probe(layers)
    probe.read(" ".join(words[: runs - 1]))

    assert not probe.allows(f" {words[runs - 1]}")
    assert probe.allows(" else")
    turned = "Basil Mahfouz"[::-1]
    other = Probe(layers)
    other.read(turned[:-1])
    assert not other.allows(turned[-1])
