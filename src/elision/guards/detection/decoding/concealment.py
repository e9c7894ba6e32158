"""A text hidden in another: first letters, letters in brackets, quoted pieces, every other one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from elision.guards.detection.decoding.found import LEAST_LEGIBLE, Decoded, picked

_FIRST_IN_LINE: Final = re.compile(r"(?m)^[ \t>]*([^\W\d_])")
_FIRST_BEHIND_MARK: Final = re.compile(r"(?m)^[^\w\n]*(?:\d{1,3}[.):][^\w\n]*)?([^\W\d_])")
_LAST_IN_LINE: Final = re.compile(r"(?m)(\w)[^\w\n]{0,8}$")
_WORD: Final = re.compile(r"(?<![^\W_])[^\W\d_]")
_BRACKETED: Final = re.compile(r"[(\[{<]([^\W_])[)\]}>]")
_CAPITAL: Final = re.compile(r"[A-Z]")
_QUOTED: Final = re.compile(
    r'"([^"\n\\]{0,80})"|(?<!\w)\'([^\'\n\\]{0,80})\'(?!\w)'
    r"|“([^”\n]{0,80})”|(?<!\w)‘([^’\n]{0,80})’|`([^`\n]{0,80})`"
)
_IDENTITY: Final = re.compile(r"(?<!\w)([^\W_])\s?=\s?\d{0,3}\s?\*?\s?\1(?!\w)")


def line_initials(text: str) -> Iterator[Decoded]:
    """Yield the first letters of the lines, once with and once without those behind a mark."""
    for code in (_FIRST_IN_LINE, _FIRST_BEHIND_MARK):
        yield from picked("line initials", text, _places(code, text))


def line_ends(text: str) -> Iterator[Decoded]:
    """Yield the last letters of the lines."""
    yield from picked("line ends", text, _places(_LAST_IN_LINE, text))


def word_initials(text: str) -> Iterator[Decoded]:
    """Yield the first letters of the words."""
    yield from picked("word initials", text, [m.start() for m in _WORD.finditer(text)])


def bracketed(text: str) -> Iterator[Decoded]:
    """Yield the letters that stand alone in brackets."""
    yield from picked("brackets", text, _places(_BRACKETED, text))


def capitals(text: str) -> Iterator[Decoded]:
    """Yield the capital letters."""
    yield from picked("capitals", text, [m.start() for m in _CAPITAL.finditer(text)])


def every_second(text: str) -> Iterator[Decoded]:
    """Yield every second character and every second letter, from the first and the second on."""
    if len(text) < 2 * LEAST_LEGIBLE:
        return
    for first in (0, 1):
        marks = range(first, len(text) + 2, 2)
        yield Decoded(text[first::2], "every second", first, len(text), certain=False, marks=marks)
    letters = [at for at, char in enumerate(text) if char.isalnum()]
    if len(letters) < len(text):
        yield from picked("every second", text, letters[::2])
        yield from picked("every second", text, letters[1::2])


def quoted(text: str) -> Iterator[Decoded]:
    """Yield what stands between quotation marks, run together: ``"Pa" + "ris"``."""
    said, marks = list[str](), list[int]()
    end = 0
    for match in _QUOTED.finditer(text):
        group = match.lastindex
        if group is None or match.end(group) == match.start(group):
            continue
        said.append(match[group])
        marks += range(*match.span(group))
        end = match.end(group)
    if len(said) > 1 and len(marks) >= LEAST_LEGIBLE:
        whole = "".join(said)
        yield Decoded(whole, "quoted", marks[0], end, certain=False, marks=[*marks, end])


def identities(text: str) -> Iterator[Decoded]:
    """Yield the letters of which equations say that they equal themselves: ``P = 3P - 2P``."""
    yield from picked("identities", text, _places(_IDENTITY, text))


def _places(code: re.Pattern[str], text: str) -> list[int]:
    return [match.start(1) for match in code.finditer(text)]
