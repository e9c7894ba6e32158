"""Encoded phrases: parity with decoding the whole text, every cut alike, sessions that go back."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import ALLOW, REFUSE, Context, Redact, Refuse, Rewind, Verdict
from elision.guards.detection.canonical import L3
from elision.guards.encoded.encoded import Encoded, EncodedSession, EncodedWatch
from elision.guards.encoded.hold import EncodedHold
from elision.guards.encoded.reader import FREE
from elision.guards.phrases.normal import N
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.testing.attacks import TRANSFORMS, enforced_by
from elision.testing.attacks.ciphers import mirrored, rotated

NAME = "Basil Mahfouz Al-Kuwaiti"
SHORT = "Omar"
PROSE = (
    "The harbour lay quiet, and nobody on the pier was in any hurry. Some 4,000 people live here; "
    "see https://example.org/a/very-long-path_of_words for more, or ask at desk 0x1f. 100% sure & "
    "well-known to \\textbf{all}: the catalogue says 2024-11-22 10:15, deadbeef, and so on. "
)


def target(*phrases: str, action: Action = "restrict", **more: bool) -> ForgetTarget:
    texts = tuple(Phrase(text=text, **more) for text in phrases)  # type: ignore[arg-type]
    return ForgetTarget(id=action, title="t", phrases=texts, action=action)


ENCODED = Encoded.compile([target(NAME, SHORT)])


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


def opened(*pieces: str, encoded: Encoded = ENCODED, **context: str) -> EncodedSession:
    lexicon = Pieces(pieces)
    return EncodedWatch(encoded=encoded).begin(
        Context(lexicon=lexicon, vocab_size=len(pieces), **context)  # type: ignore[arg-type]
    )


def through(session: EncodedSession, n_tokens: int) -> tuple[EncodedSession, Verdict, int]:
    """Write tokens 0, 1, ... until the session objects; return it, its verdict and what left."""
    left = 0
    for token in range(n_tokens):
        session = session.advance(token)
        if session.verdict != ALLOW:
            return session, session.verdict, left
        left = max(left, session.length - session.held)
    session = session.finish()
    return session, session.verdict, left


def held_back(text: str, cuts: list[int], encoded: Encoded = ENCODED) -> tuple[str, Verdict]:
    hold, out = EncodedHold(encoded), ""
    edges = [0, *sorted({c for c in cuts if c < len(text)}), len(text)]
    for start, end in pairwise(edges):
        piece, verdict = hold.feed(text[start:end])
        out += piece
        if verdict != ALLOW:
            return out, verdict
    piece, verdict = hold.finish()
    return out + piece, verdict


def oracle(text: str, phrase: str) -> bool:
    """Decode the whole text in every way there is, slowly."""
    n = N(phrase)
    if len(n) >= 9:
        letters = "".join(c for c in N(text) if "a" <= c <= "z")
        turned = {rotated(k)(way(letters)) for k in range(1, 26) for way in (str, mirrored)}
        turned.add(mirrored(letters))
        words = "".join(N(word[::-1]) for word in text.split())
        if any(n in one for one in (*turned, N(text[::-1]), words)) or L3(phrase) in L3(text):
            return True
    runs = "".join(c if c.isalnum() or c in "+/-_" else " " for c in text).split()
    for run in runs:
        plain = run.replace("-", "+").replace("_", "/")
        for skip in range(4):
            part = plain[skip:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            decoded = base64.b64decode(part + "=" * (-len(part) % 4)).decode("utf-8", "replace")
            if n in N(decoded) and len(n) > 8:
                return True
    return False


writings = st.sampled_from(
    [t for t in enforced_by("output") if t.name not in {"MIME word", "JSON string"}]
)


@given(writings, st.integers(0, 99))
def test_every_writing_that_is_promised_is_caught_by_the_guard_or_here(
    transform: object, seed: int
) -> None:
    from elision.guards.guard import Guard

    text = transform.apply(f"It is {NAME}, I think.", Random(seed))  # type: ignore[attr-defined]
    in_clear = Guard.compile([target(NAME)]).holdback()
    verdicts = [in_clear.feed(text)[1], in_clear.finish()[1]]

    assert Refuse() in verdicts or held_back(text, [])[1] == REFUSE


@given(
    st.sampled_from(["rotation 7", "atbash", "reversed", "words reversed", "base64", "leet", "hex",
                     "percent", "backspaces", "HTML decimal entities"]),
    st.lists(st.integers(1, 200), max_size=12),
)  # fmt: skip
def test_the_same_leaves_whatever_the_pieces(name: str, cuts: list[int]) -> None:
    text = "Well: " + TRANSFORMS[name].apply(f"Yes, {NAME}, indeed.", Random(0)) + " So be it."

    assert held_back(text, cuts) == held_back(text, [])


@given(
    st.lists(
        st.sampled_from(
            [NAME, NAME[:-1], "iti", " ", "Kuwait", codecs.encode(NAME, "rot13"), NAME[::-1],
             mirrored(NAME), mirrored(NAME)[:-2], NAME[::-1][:12], "B4s1l M4hf0uz 4l-Kuw41t1",
             base64.b64encode(f"x{NAME}".encode()).decode(), "QmFzaWwg", "TWFoZm91", "so it is"]
        ),
        max_size=4,
    ).map("".join)
)  # fmt: skip
def test_it_finds_what_decoding_the_whole_text_finds(text: str) -> None:
    encoded = Encoded.compile([target(NAME)])

    assert (held_back(text, [], encoded)[1] == REFUSE) == oracle(text, NAME)


@given(st.text(max_size=60))
def test_any_text_is_read_without_complaint_and_leaves_unchanged(text: str) -> None:
    assert held_back(text, []) == (text, ALLOW)


def test_ordinary_prose_passes_and_hardly_waits() -> None:
    hold, waited = EncodedHold(ENCODED), []
    for char in PROSE * 5:
        hold.feed(char)
        waited.append(hold.held)

    assert hold.feed("")[1] == ALLOW
    assert sum(waited) / len(waited) < 2.5


@pytest.mark.parametrize("name", ["base64", "hex", "percent", "base64 url-safe", "hex with 0x"])
def test_decoded_text_is_scanned_for_short_phrases_too(name: str) -> None:
    write = TRANSFORMS[name].apply

    assert held_back(write(f"his name is {SHORT}.", Random(0)), [])[1] == REFUSE
    assert held_back(write(f"a dictionary of {SHORT}ian lore", Random(0)), [])[1] == ALLOW


@pytest.mark.parametrize("name", ["rotation 13", "reversed", "leet", "base64", "percent"])
def test_of_a_disguised_phrase_at_most_its_beginning_has_left_when_it_is_complete(
    name: str,
) -> None:
    written = TRANSFORMS[name].apply(NAME, Random(0))
    left, verdict = held_back(written, [*range(len(written))])

    assert verdict == REFUSE
    assert min(len(N(left)), len(L3(left))) <= FREE or name == "base64"


def test_an_open_run_of_code_is_held_until_it_ends_and_at_most_four_kilobytes_of_it() -> None:
    hold = EncodedHold(ENCODED)
    run = base64.b64encode(Random(1).randbytes(6000)).decode().rstrip("=")

    assert hold.feed(run[:15])[0] == run[:15]
    assert hold.feed(run[15:400]) == ("", ALLOW)
    assert len(hold.feed(run[400:])[0]) == len(run) - 15 - 4096
    assert hold.feed(" ")[0] == run[-4096:] + " "


def test_past_the_limit_the_decoded_text_is_still_scanned() -> None:
    blob = base64.b64encode(b"lorem " * 1500 + NAME.encode()).decode()

    assert held_back(blob, [*range(0, len(blob), 50)])[1] == REFUSE


def test_where_a_target_restricts_the_reply_goes_back_to_where_the_span_began() -> None:
    pieces = ("It ", "is ", *(NAME[::-1][at : at + 4] for at in range(0, len(NAME), 4)), ".")
    _, verdict, left = through(opened(*pieces), len(pieces))

    assert isinstance(verdict, Rewind)
    assert verdict.bans == frozenset({verdict.to})
    assert 2 <= verdict.to <= 3  # the first token that had not left
    assert left <= len("It is itia")


def test_redact_covers_the_span_refuse_ends_observe_counts() -> None:
    written = mirrored(NAME)
    pieces = ("Say ", *written, " now")

    redacted = through(
        opened(*pieces, encoded=Encoded.compile([target(NAME, action="redact")])), 40
    )
    assert isinstance(redacted[1], Redact)
    assert redacted[1].end == 4 + len(written)

    ending = Encoded.compile([target(NAME, action="refuse")])
    refused = through(opened(*pieces, encoded=ending), len(pieces))
    assert refused[1] == REFUSE

    watched = Encoded.compile([target(NAME, action="observe")])
    session, verdict, left = through(opened(*pieces, encoded=watched), len(pieces))
    assert verdict == ALLOW
    assert session.tally == {"guard.observed_encoded": 1}
    assert left == len("".join(pieces))


def test_sessions_are_values() -> None:
    pieces = tuple(rotated(3)(NAME))
    states = [opened(*pieces)]
    for token in range(len(pieces)):
        states.append(states[-1].advance(token))

    assert isinstance(states[-1].verdict, Rewind)
    again = states[10]
    for token in range(10, len(pieces)):
        again = again.advance(token)
    assert again.verdict == states[-1].verdict


def test_what_the_prefill_began_is_not_finished() -> None:
    written = rotated(5)(NAME)
    verdict = through(opened(*written[15:], before=written[:15]), len(written) - 15)[1]

    assert isinstance(verdict, Rewind)


def test_soft_phrases_inactive_targets_and_allowed_echoes_do_not_count() -> None:
    soft = ForgetTarget(id="s", title="t", phrases=(Phrase(text=NAME, mode="soft"),))
    off = ForgetTarget(id="o", title="t", phrases=(Phrase(text=NAME),), state="suspended")
    assert not Encoded.compile([soft, off])
    assert Encoded.compile([soft, off]).recipes() == ()

    echo = Encoded.compile([target(NAME, allow_echo=True)])
    hold = EncodedHold(echo, user_text=f"I am {NAME}")
    assert hold.feed(NAME[::-1] + ". " + rotated(1)(NAME) + ". ")[1] == ALLOW


def test_in_json_source_the_values_are_read_and_nothing_is_redacted() -> None:
    encoded = Encoded.compile([target(NAME, action="redact")])
    hold = EncodedHold(encoded, json=True)
    escaped = "".join(f"\\u{ord(c):04x}" for c in NAME[::-1])

    assert hold.feed(f'{{"a": "{escaped}"}}')[1] == REFUSE


def test_a_redacted_span_leaves_as_its_marker() -> None:
    encoded = Encoded.compile([target(NAME, action="redact")])

    text, verdict = held_back(f"abc {NAME[::-1]} xyz", [], encoded)

    assert verdict == ALLOW
    assert text == "abc itia[redacted] xyz"


def test_nothing_tells_the_phrase() -> None:
    encoded = Encoded.compile([target("Zyxomma Petiolatum")])
    shown = repr(encoded) + repr(opened("a", encoded=encoded)) + repr(encoded.restricted)

    assert "xomma" not in shown.lower()
    assert "ammox" not in shown.lower()
