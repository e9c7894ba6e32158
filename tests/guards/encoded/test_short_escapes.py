r"""A backslash and a letter may be a space to whoever parses the text: ``Basil\nMahfouz``."""

from __future__ import annotations

import pytest

from elision.contract import ALLOW, REFUSE, Verdict
from elision.guards.encoded.encoded import Encoded
from elision.guards.encoded.hold import EncodedHold
from elision.guards.targets import ForgetTarget, Phrase

STREET = Encoded.compile(
    [ForgetTarget(id="t", title="t", phrases=(Phrase(text="Marlowe Street"),))]
)


def judged(text: str, *, at: int | None = None) -> tuple[str, Verdict]:
    hold, left = EncodedHold(STREET), ""
    for piece in (text,) if at is None else (text[:at], text[at:]):
        out, verdict = hold.feed(piece)
        left += out
        if verdict == REFUSE:
            return left, verdict
    out, verdict = hold.finish()
    return left + out, verdict


@pytest.mark.parametrize("letter", "bfnrtv")
@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_a_short_escape_between_two_words_is_a_space(letter: str, depth: int) -> None:
    assert judged(f'{{"at": "Marlowe{chr(92) * depth}{letter}Street"}}')[1] == REFUSE


def test_the_same_leaves_wherever_the_text_is_cut() -> None:
    text = r'{"at": "12 Marlowe\r\n\tStr\u0065et"}'
    whole = judged(text)

    assert whole[1] == REFUSE
    assert "Marlowe" not in whole[0]
    assert all(judged(text, at=at) == whole for at in range(len(text)))


@pytest.mark.parametrize("text", [r"\u004darlowe\nStreet", r"\u004darlow\u0065 \Street"])
def test_short_and_long_escapes_are_read_together_and_apart(text: str) -> None:
    assert judged(text)[1] == REFUSE


def test_a_letter_behind_a_backslash_stays_a_letter_to_the_other_reading() -> None:
    tern = Encoded.compile([ForgetTarget(id="t", title="t", phrases=(Phrase(text="Arctic tern"),))])

    assert EncodedHold(tern).feed(r"\u0041rctic \tern ")[1] == REFUSE


def test_sources_full_of_backslashes_come_through() -> None:
    text = r'printf("%s\n", "\tMarlowe\\"); \textbf{Street} C:\new\Marlowe'
    assert judged(text) == (text, ALLOW)
