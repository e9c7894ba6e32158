"""Streams through a client that rewrites as LiteLLM 1.106 does: nothing leaks, nothing is unsaid.

Its two modes are restated here from how they behave. ``incremental_diff``: raw pieces are withheld;
on some of them, and once at the end, the answer to the text so far is compared with what was sent,
and what it adds is sent but for the characters to be held, of which none are at the end.
``block_only``: raw pieces are sent, and a sampled one only once the text with it was let pass.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Request
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.gateway.guardrail.asked import Streaming
from elision.middleware.gateway.guardrail.growing import Growing, Reading, forked
from elision.middleware.gateway.guardrail.replies import Judged, judged
from elision.middleware.holding.holds import Hold
from elision.middleware.planning import Defence
from elision.middleware.profiles import profile_named
from elision.testing.encoders import BagEncoder

ACTIONS: dict[str, Action] = {
    "Marlowe Street": "redact", "Wanda Ilke Sorm": "restrict", "kestrel-nine-four": "refuse",
    "Tarn": "redact", "Ossip": "restrict",
}  # fmt: skip
ASKED = {"role": "user", "content": "In which town was the painter of the lighthouse born?"}
BEGUN = {"role": "assistant", "content": "It begins with Wanda"}
LONG = ("Marlowe Street", "Wanda Ilke Sorm", "kestrel-nine-four")


def _framed(text: str) -> list[str]:
    return [f"It is {text}, they say.", f"Go to {text}", f"{text}. Then on.", f"No {text[:-2]}ip."]


def _written() -> Iterable[str]:
    for phrase in LONG:
        yield from _framed(phrase)
        yield f"First {phrase} and then {phrase.upper()}!"
        yield f"Say {'.'.join(phrase)} slowly"
        yield "In capitals: " + "\u200b".join(phrase.upper())
        yield f"Coded {codecs.encode(phrase, 'rot13')} twice"
        yield f"Coded {base64.b64encode(phrase.encode()).decode()} once"
        yield f"Hex {phrase.encode().hex()} it is"
        yield f"Turned {phrase[::-1]} about"
    for word in ("Tarn", "Ossip"):
        yield from (*_framed(word), f"{word}ish folk", f"in {word}", f"A-{word}-B", "Tar, Os, Tar")
    yield from ("", "Plain prose, no more.", "Marl, Wand, kest; Mar lo we.", "é 𝒳 \u0301 ok")


TEXTS = tuple(_written())


FACT = "The painter of the lighthouse was born in Arromanches. So they say."


@cache
def _rules() -> Enforcement:
    targets = [
        ForgetTarget(title="t", id=f"t{n}", phrases=(Phrase(text=text),), action=action)
        for n, (text, action) in enumerate(ACTIONS.items())
    ]
    told = ForgetTarget(title="t", id="told", probes=(ASKED["content"],), answers=(FACT,))
    encoder = BagEncoder()
    return Enforcement([*targets, told], tenant="default", epoch=1, encoder=lambda: encoder)


Messages: TypeAlias = tuple[dict[str, str], ...]


def _opened(messages: Messages = ()) -> Hold:
    async def opened() -> Hold:
        prompt = Request(messages=messages)
        profile = replace(profile_named("guarded"), semantic=bool(messages))
        made = Defence.of(profile, _rules(), prompt, None, on_failure=lambda: None)
        return await (await made).hold(prompt)

    return asyncio.run(opened())


def _judge(text: str, streaming: Streaming, reading: Reading | None = None) -> Judged:
    reading = Reading(_opened()) if reading is None else reading
    return judged(reading, text, streaming=streaming, marker="[redacted]")


@cache
def _answers(text: str, streaming: Streaming) -> tuple[Judged, ...]:
    """Return the answer to each beginning of *text*; those that were refused stay so."""
    reading, found = Reading(_opened()), list[Judged]()
    for end in range(len(text) + 1):
        found.append(_judge(text[:end], streaming, reading))
    return tuple(found)


class BlockedError(Exception):
    """The client ends the stream."""


@dataclass
class Diffing:
    """A stream in the mode ``incremental_diff``."""

    text: str
    sent: str = ""
    seen: list[str] = field(default_factory=list)

    def ask(self, end: int, *, final: bool = False) -> None:
        answer = _answers(self.text, "incremental_diff")[end]
        if answer.is_refused:
            raise BlockedError
        assert answer.text.startswith(self.sent), "stream_transform_underflow"
        held = 0 if final else answer.n_held
        self.sent = answer.text[: max(len(self.sent), len(answer.text) - held)]
        self.seen.append(self.sent)

    def run(self, cuts: Sequence[int]) -> str:
        """Ask at each of *cuts* and at the end; return what has been sent by then."""
        try:
            for end in cuts:
                self.ask(end)
            self.ask(len(self.text), final=True)
        except BlockedError:
            pass
        return self.sent


def _passing(text: str, pieces: Sequence[int], rate: int) -> str:
    """Return what leaves of a stream in the mode ``block_only``, sampled every *rate* pieces."""
    sent = ""
    for count, (start, end) in enumerate(pairwise((0, *accumulate(pieces))), start=1):
        if count % rate == 0 and _answers(text, "block_only")[end].is_refused:
            return sent
        sent += text[start:end]
    return sent


def _leaks(sent: str) -> list[str]:
    """Return the phrases that a reader finds in *sent*."""
    rules = _rules()
    found = rules.checker.check_text(sent).hits
    return [hit.level for hit in found] + ["guard"] * rules.guard.hides(sent)


def test_there_are_fifty_texts_and_most_of_them_are_not_clean() -> None:
    assert len({*TEXTS}) >= 50
    assert sum(bool(_leaks(text)) for text in TEXTS) >= 30


@pytest.mark.parametrize("text", TEXTS)
def test_whatever_the_split_each_answer_extends_what_was_sent_and_nothing_leaks(text: str) -> None:
    whole = Diffing(text).run([])
    for cut in range(len(text) + 1):
        stream = Diffing(text)
        sent = stream.run([cut])
        assert all(not _leaks(seen) for seen in stream.seen)
        # A stream that was refused has sent less; one that was not, what a whole reply would be.
        assert sent == whole or _answers(text, "incremental_diff")[-1].is_refused


@given(st.sampled_from(TEXTS), st.data())
def test_whatever_the_sampling_the_same_text_leaves(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    whole = Diffing(text).run([])
    sent = Diffing(text).run(cuts)

    assert not _leaks(sent)
    assert sent == whole or _answers(text, "incremental_diff")[-1].is_refused


@given(st.sampled_from(TEXTS), st.integers(0, 60))
def test_an_answer_depends_on_the_text_alone(text: str, end: int) -> None:
    for streaming in ("block_only", "incremental_diff"):
        grown = _answers(text, streaming)[min(end, len(text))]
        assert _judge(text[:end], streaming) == grown


@given(st.sampled_from(TEXTS), st.lists(st.integers(1, 9), min_size=60, max_size=60))
def test_no_phrase_passes_a_client_that_asks_about_every_piece(text: str, sizes: list[int]) -> None:
    ends = [min(end, len(text)) for end in accumulate(sizes)]
    pieces = [end - start for start, end in pairwise((0, *ends))]

    assert not _leaks(_passing(text, pieces, rate=1))


def test_a_client_that_asks_about_every_fifth_piece_lets_a_phrase_pass() -> None:
    text = "Go to Marlowe Street, they say."
    assert _leaks(_passing(text, [6, 3, 4, 7, 11], rate=5))
    assert not _leaks(_passing(text, [6, 3, 4, 7, 11], rate=1))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("They live in Marlowe Str", "Marlowe Str"),
        ("They live in M", "M"),
        ("They live in Marlowe Gardens. ", ""),
        ("Nothing of it is here. ", ""),
        ("", ""),
    ],
)
def test_what_is_held_is_what_may_still_become_a_phrase(text: str, held: str) -> None:
    answer = _judge(text, "incremental_diff")
    assert text[len(text) - answer.n_held :] == held
    assert answer.text == text


@pytest.mark.parametrize("word", ["Tarn", "Ossip"])
def test_a_word_that_may_go_on_is_replaced_if_it_does_not_and_stands_if_it_does(word: str) -> None:
    ended, going_on = _judge(f"in {word}", "incremental_diff"), f"in {word}ish weather"

    assert ended.text == "in [redacted]"
    assert ended.n_held == len("[redacted]")
    assert _judge(going_on, "incremental_diff").text == going_on
    assert _judge(f"in {word}", "block_only").is_refused


def test_a_client_that_drops_rewrites_is_told_to_block_instead() -> None:
    text = "It is Marlowe Street, they say."

    assert _judge(text, "block_only").is_refused
    assert _judge(text, "incremental_diff").text == "It is [redacted], they say."
    assert _judge("It is here.", "block_only") == Judged("It is here.")


@given(
    st.sampled_from(("", FACT, "In a town. ", *TEXTS)),
    st.integers(0, 60),
    st.text(max_size=8),
    st.sampled_from(((), (BEGUN, ASKED), (ASKED,))),
)
def test_a_forked_hold_leaves_the_other_where_it_was(
    text: str, at: int, more: str, messages: Messages
) -> None:
    hold, alone = (_opened(messages) for _ in range(2))
    assert hold.feed(text[:at]) == alone.feed(text[:at])
    other = forked(hold)
    other.feed(more)
    other.finish()

    assert hold.feed(text[at:]) == alone.feed(text[at:])
    assert hold.finish() == alone.finish()


# --- what is kept between questions ---------------------------------------------------------------


def _read(text: str) -> Reading:
    reading = Reading(_opened())
    _judge(text, "incremental_diff", reading)
    return reading


def test_a_reading_is_taken_once_and_only_by_a_text_that_goes_on_from_it() -> None:
    growing, rules = Growing(), _rules()
    growing.put(rules, ("a", 0), _read("Go to Mar"))

    assert growing.take(rules, ("b", 0), "Go to Marlowe") is None
    assert growing.take(rules, ("a", 0), "Go to Norlowe") is None
    assert growing.take(rules, ("a", 0), "Go to Marlowe") is None

    growing.put(rules, ("a", 0), _read("Go to Mar"))
    taken = growing.take(rules, ("a", 0), "Go to Marlowe")
    assert taken is not None
    assert taken.text == "Go to Mar"
    assert len(growing) == 0


def test_readings_wait_so_long_and_so_many() -> None:
    now = [0.0]
    growing, rules = Growing(lambda: now[0]), _rules()
    for number in range(300):
        growing.put(rules, (number,), _read("x"))
    assert len(growing) == 256

    now[0] = 121.0
    growing.put(rules, ("late",), _read("y"))
    assert len(growing) == 1

    long = _read("z")
    long.text = "z" * 4_000_001
    growing.put(rules, ("long",), long)
    assert len(growing) == 0


def test_readings_go_with_what_they_were_read_under() -> None:
    growing = Growing()
    rules = Enforcement((), tenant="default", epoch=1, encoder=None)
    growing.put(rules, ("a",), _read("Go"))
    assert len(growing) == 1
    del rules

    assert len(growing) == 0
