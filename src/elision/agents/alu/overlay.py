"""Writes one name as another one was written: letter for letter, in its case and its disguise."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from elision.guards.phrases.normal import SEP, N, fold

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_=-]+")
_WIDE: Final = 0xFEE0
"""From an ASCII sign to its full-width form; there are `_SIGNS` of them."""
_SIGNS: Final = 93
_SPOKEN: Final = {
    word[0]: word
    for word in "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike "
    "november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu".split()
}
"""The alphabet of radio, as ICAO spells it."""
_SPELT: Final = re.compile(r"[^\W_]+")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")


def overlaid(shown: str, old: str, new: str) -> str:
    """Return *new* as *shown* writes *old*: with its separators, its case and width, turned.

    ``B-A-S-I-L`` for ``Basil`` makes ``B-E-W-E-N`` of ``Bewen``. Turned is backwards, rotated by
    any number of letters, mirrored, or backwards and one of these. Where the letters do not
    correspond one to one, *new* stands as it is.

    Args:
        shown: A piece of a text in which *old* was found.
        old: A name.
        new: What is to stand there instead.
    """
    places = [at for at, char in enumerate(shown) if fold(char) not in {SEP, ""}]
    letters = "".join(char for char in new if fold(char) not in {SEP, ""})
    before, there = N(old), N(shown)
    if len(places) != len(letters) or len(before) != len(there):
        return in_case(shown, new)
    for turn in _turns():
        if turn(before) == there:
            # Only an unturned name keeps letters that N would change.
            written = letters if turn is _as_it_is else turn(N(letters))
            return _laid(shown, places, written) if len(written) == len(places) else new
    return in_case(shown, new)


def respelt(text: str, start: int, end: int, old: str, new: str) -> tuple[int, int, str] | None:
    """Return the words around a span that spell *old* in the alphabet of radio, and those of *new*.

    Args:
        text: Where the span is.
        start: Its first character.
        end: One past its last; in the middle of the last word, perhaps.
        old: A name.
        new: What is to be spelled instead.

    Returns:
        Begin and end of these words, and what is to stand there; None if they are none.
    """
    found = [it for it in _SPELT.finditer(text) if it.start() < end and start < it.end()]
    words = [N(it[0]) for it in found]
    is_spoken = sum(map(_is_spoken, words)) * 2 > len(words) and all(
        len(word) == 1 or _is_spoken(word) for word in words
    )
    if not is_spoken or "".join(word[0] for word in words) != N(old):
        return None
    spoken = [in_case(found[0][0], _SPOKEN.get(letter, letter)) for letter in N(new)]
    gaps = [text[one.end() : other.start()] for one, other in pairwise(found)]
    gaps += [min(gaps, key=len)] * (len(spoken) - len(found))
    laid = "".join(word + gap for word, gap in zip(spoken, [*gaps, ""], strict=False))
    return found[0].start(), found[-1].end(), laid.rstrip()


def _is_spoken(word: str) -> bool:
    return len(word) > 1 and word[:3] == _SPOKEN.get(word[0], "")[:3]


def recoded(text: str, start: int, end: int, change: Callable[[str], str]) -> tuple[int, int, str]:
    """Return the run of base64 or hexadecimal around a span, with what it says changed.

    Args:
        text: Where the span is.
        start: Its first character.
        end: One past its last.
        change: What is to be done to what it says.

    Returns:
        Begin and end of the run, and what is to stand there: the run itself if it is neither, or
        nothing changed.
    """
    for match in _ENCODED.finditer(text):
        if match.start() < end and start < match.end():
            return match.start(), match.end(), _changed(match[0], change)
    return start, end, text[start:end]


def _turns() -> Iterator[Callable[[str], str]]:
    yield _as_it_is
    yield lambda text: text[::-1]
    for table in (*(_ALPHABET[n:] + _ALPHABET[:n] for n in range(1, 26)), _ALPHABET[::-1]):
        turn = str.maketrans(_ALPHABET, table)
        yield lambda text, turn=turn: text.translate(turn)  # type: ignore[misc]
        yield lambda text, turn=turn: text.translate(turn)[::-1]  # type: ignore[misc]


def _as_it_is(text: str) -> str:
    return text


def _laid(shown: str, places: list[int], letters: str) -> str:
    chars = [*shown]
    for at, letter in zip(places, letters, strict=True):
        new = letter.upper() if chars[at].isupper() else letter.lower()
        is_wide = _WIDE <= ord(chars[at]) - ord("!") <= _WIDE + _SIGNS and new.isascii()
        chars[at] = chr(ord(new) + _WIDE) if is_wide else new
    return "".join(chars)


def in_case(shown: str, new: str) -> str:
    """Return *new* in capitals, in small letters or with a capital first, as *shown* is."""
    if shown.isupper() and len(shown) > 1:
        return new.upper()
    if shown.islower():
        return new.lower()
    return new[:1].upper() + new[1:] if shown.istitle() else new


def _changed(run: str, change: Callable[[str], str]) -> str:
    if _HEX.fullmatch(run):
        said = _utf8(bytes.fromhex(run))
        if said is not None and (now := change(said)) != said:
            return now.encode().hex()
    try:
        data = base64.b64decode(
            run + "=" * (-len(run) % 4), altchars=b"-_" if set(run) & {*"-_"} else None
        )
    except (binascii.Error, ValueError):
        return run
    said = _utf8(data)
    if said is None or (now := change(said)) == said:
        return run
    return base64.b64encode(now.encode()).decode()


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
