"""Other alphabets for the same letters: Morse, NATO's words, Braille, and letters as symbols."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from string import ascii_lowercase
from typing import Final

from elision.guards.detection.decoding.found import LEAST_LEGIBLE, Decoded

_MORSE: Final[dict[str, str]] = dict(
    zip(
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- "
        ".-- -..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. "
        ".-.-.- --..-- -....- .----. -..-. .--.-.".split(),
        ascii_lowercase + "0123456789.,-'/@",
        strict=True,
    )
)
_MORSE_RUN: Final = re.compile(
    r"[.·•∙…_−–—-]{1,7}(?:(?:[ \t\r\n|]{0,3}/[ \t\r\n|/]{0,3}|[ \t\r\n|]{1,4})[.·•∙_−–—-]{1,7}){3,}"
)
_DOTS_AND_DASHES: Final = str.maketrans("·•∙_−–—", "...----")
_NATO: Final = (
    "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliett juliet kilo lima mike "
    "november oscar papa quebec romeo sierra tango uniform victor whiskey whisky x-ray xray yankee "
    "zulu".split()
)
_NATO_WORD: Final = re.compile(rf"(?i)(?<![a-z])(?:{'|'.join(_NATO)})(?![a-z])")
_NATO_GAP: Final = 12
_BRAILLE: Final[dict[str, str]] = dict(
    zip("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵", ascii_lowercase, strict=True)
)
_BRAILLE_RUN: Final = re.compile(r"[⠀-⣿](?:[ \t\r\n'-]{0,2}[⠀-⣿]){3,}")
_NUMBER_SIGN: Final = "⠼"
_DIGITS: Final = dict(zip("abcdefghij", "1234567890", strict=True))
_SYMBOLS: Final = re.compile("[\U0001f000-\U0001f0ff\U0001f300-\U0001faff](?:[\ufe0f\u200d])?")


def morse(text: str) -> Iterator[Decoded]:
    """Yield what Morse code says; strokes and wide gaps separate words."""
    for match in _MORSE_RUN.finditer(text):
        letters = re.split(r"[\s|]+|(/)", match[0].translate(_DOTS_AND_DASHES))
        said = "".join(" " if code == "/" else _MORSE.get(code or "", "") for code in letters)
        if len(said.replace(" ", "")) >= LEAST_LEGIBLE:
            yield Decoded(said, "Morse", *match.span())


def nato(text: str) -> Iterator[Decoded]:
    """Yield what words of the NATO alphabet say that stand close together."""
    lower = text.lower()
    if sum(word in lower for word in _NATO) < 2:
        return
    group: list[re.Match[str]] = []
    words = [*_NATO_WORD.finditer(text)]
    for word, following in pairwise([*words, None]):
        assert word is not None
        group.append(word)
        if following is None or following.start() - word.end() > _NATO_GAP:
            if len(group) >= LEAST_LEGIBLE:
                said = "".join(match[0][0] for match in group)
                yield Decoded(said, "NATO", group[0].start(), group[-1].end())
            group = []


def braille(text: str) -> Iterator[Decoded]:
    """Yield what Braille patterns say in the uncontracted English code."""
    for match in _BRAILLE_RUN.finditer(text):
        said, digits = "", False
        for cell in match[0]:
            letter = _BRAILLE.get(cell)
            digits = cell == _NUMBER_SIGN or (digits and letter in _DIGITS)
            if letter is not None:
                said += _DIGITS[letter] if digits else letter
            elif cell in "⠀ \n-⠤":
                said += " "
        yield Decoded(said, "Braille", *match.span())


def symbols(text: str) -> Iterator[Decoded]:
    """Yield pictographs as letters, for alphabets made of 26 that follow each other.

    Which letter the first stands for is not known: what is yielded is right up to a rotation.
    """
    found = [*_SYMBOLS.finditer(text)]
    if len(found) >= LEAST_LEGIBLE:
        said = "".join(ascii_lowercase[ord(match[0][0]) % 26] for match in found)
        yield Decoded(said, "symbols", found[0].start(), found[-1].end(), certain=False)
