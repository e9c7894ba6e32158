"""What a decoder yields: a text that another text spells in its own way, and where it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

LEAST_LEGIBLE: Final = 4
"""Characters in a row that must be fit to print for bytes to count as a text."""
AROUND: Final = 256
"""Plain characters around an escape that are read together with it."""

_LEGIBLE: Final = re.compile(
    rf"[^\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]{{{LEAST_LEGIBLE},}}"
)


class Decoded(NamedTuple):
    """A text found in another one.

    Attributes:
        text: What it says.
        how: The decoder's name.
        start: First raw character that it was read from.
        end: One past the last.
        certain: Whether so much text cannot come out by accident; what first letters and the like
            come to is text of a kind whatever one feeds them.
        marks: For each character of ``text`` the raw one where it begins, and the end; empty if the
            characters cannot be told apart. Never changed.
    """

    text: str
    how: str
    start: int
    end: int
    certain: bool = True
    marks: Sequence[int] = ()

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """Return the raw span behind ``text[start:end]``."""
        if not self.marks:
            return self.start, self.end
        return self.marks[start], min(self.marks[end], self.end)


Decoder: TypeAlias = Callable[[str], Iterator[Decoded]]
"""Yields what it reads in a text. Total: no text makes it raise; time linear in the text."""


def legible(data: bytes) -> str:
    """Return the runs of *data* that can be read as UTF-8, one a line; empty if there are none.

    Zero bytes are left out, so UTF-16 and UTF-32 of Latin letters read as well. What stands in
    front by mistake, a word run into the code, does not spoil the rest.
    """
    text = data.replace(b"\0", b"").decode("utf-8", "replace")
    return "\n".join(_LEGIBLE.findall(text))


def picked(how: str, text: str, places: list[int]) -> Iterator[Decoded]:
    """Yield the characters of *text* at *places*, in this order, as one text; none if too few."""
    if len(places) < LEAST_LEGIBLE:
        return
    chars = "".join(map(text.__getitem__, places))
    end = places[-1] + 1
    yield Decoded(chars, how, places[0], end, certain=False, marks=[*places, end])


def spread(start: int, end: int, n_chars: int) -> Iterator[int]:
    """Yield where *n_chars* characters begin that share the raw span evenly."""
    return (start + (end - start) * n // n_chars for n in range(n_chars))


def replaced(
    how: str, text: str, code: re.Pattern[str], read: Callable[[str], str]
) -> Iterator[Decoded]:
    """Yield the stretches of *text* that hold matches of *code*, with these decoded.

    Matches that are less than `AROUND` characters apart share a stretch, and as much text as that
    belongs to it on either side.

    Args:
        how: The decoder's name.
        text: The raw text.
        code: Never matches nothing.
        read: Gets the matched text; may return nothing.
    """
    group: list[re.Match[str]] = []
    for match in code.finditer(text):
        if group and match.start() - group[-1].end() > AROUND:
            yield _stretch(how, text, group, read)
            group = []
        group.append(match)
    if group:
        yield _stretch(how, text, group, read)


def _stretch(
    how: str, text: str, matches: list[re.Match[str]], read: Callable[[str], str]
) -> Decoded:
    first = at = max(0, matches[0].start() - AROUND)
    last = min(len(text), matches[-1].end() + AROUND)
    pieces, marks = list[str](), list[int]()
    for match in matches:
        start, end = match.span()
        value = read(match[0])
        pieces += [text[at:start], value]
        marks += range(at, start)
        marks += spread(start, end, len(value))
        at = end
    pieces.append(text[at:last])
    marks += range(at, last + 1)
    return Decoded("".join(pieces), how, first, last, marks=marks)
