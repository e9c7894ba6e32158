"""Reads a text character by character, as it stands or as the JSON source it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_BROKEN: Final = "�"


class Char(NamedTuple):
    """A character as its reader will see it.

    Attributes:
        value: The character.
        start: First raw character that writes it.
        end: One past the last.
    """

    value: str
    start: int
    end: int


class Source(Protocol):
    """Turns raw text, piece by piece, into the characters that it stands for."""

    def read(self, text: str) -> Iterator[Char]:
        """Yield what *text* adds. To be drained before the next call."""
        ...

    def finish(self) -> Iterator[Char]:
        """Yield what is left when nothing follows."""
        ...


class Plain:
    """Text that stands for itself.

    Args:
        at: Raw position of its first character.
    """

    def __init__(self, at: int = 0) -> None:
        self._at = at

    def read(self, text: str) -> Iterator[Char]:
        """Yield the characters of *text*."""
        for char in text:
            self._at += 1
            yield Char(char, self._at - 1, self._at)

    def finish(self) -> Iterator[Char]:
        """Yield nothing: nothing waits."""
        return iter(())


class Json:
    r"""JSON source: inside its strings ``\u0041`` stands for *A*, outside everything for itself.

    An escape that JSON does not know stands for its characters without the backslash, as lenient
    parsers have it; half a surrogate pair stands for U+FFFD.

    Args:
        nested: Whether it may be JSON inside JSON, at any depth, begun anywhere: then every run of
            backslashes is one, and there is no outside.
    """

    def __init__(self, *, nested: bool = False) -> None:
        self._at = 0
        self._nested = nested
        self._in_string = nested
        self._more = 0  # backslashes of a run behind its first
        self._escape = ""
        self._high: Char | None = None

    def read(self, text: str) -> Iterator[Char]:
        """Yield the characters that *text* completes."""
        for raw in text:
            self._at += 1
            if self._escape:
                self._escape += raw
                yield from self._escaped()
            elif raw == "\\" and self._in_string:
                self._escape = raw
            else:
                self._in_string ^= raw == '"' and not self._nested
                yield from self._plain(raw, 1)

    def finish(self) -> Iterator[Char]:
        """Yield what an unfinished escape comes to."""
        broken, self._escape = self._escape, ""
        yield from self._plain(broken, 1)
        yield from self._lone()

    def _escaped(self) -> Iterator[Char]:
        escape = self._escape
        kind, digits = escape[1], escape[2:]
        if kind == "\\" and self._nested:
            self._escape, self._more = "\\", self._more + 1
        elif kind != "u":
            self._escape = ""
            yield from self._plain(_SHORT.get(kind, kind), 2 + self._run())
        elif not _HEX.issuperset(digits):
            # A quote or a backslash that broke the escape keeps its meaning.
            self._escape, self._at, self._more = "", self._at - 1, 0
            yield from self._plain(escape[1:-1], 1)
            yield from self.read(escape[-1])
        elif len(digits) == 4:
            self._escape = ""
            yield from self._unit(int(digits, 16))

    def _unit(self, code: int) -> Iterator[Char]:
        """Yield the character of one UTF-16 unit, or keep it until its other half is there."""
        here = Char(chr(code), self._at - 6 - self._run(), self._at)
        high, low = self._high, 0xDC00 <= code < 0xE000
        if high is not None and low:
            self._high = None
            whole = 0x10000 + ((ord(high.value) - 0xD800) << 10) + (code - 0xDC00)
            yield Char(chr(whole), high.start, here.end)
            return
        yield from self._lone()
        if 0xD800 <= code < 0xDC00:
            self._high = here
        else:
            yield here._replace(value=_BROKEN) if low else here

    def _run(self) -> int:
        """Return how many backslashes more than one began the escape that ends here."""
        more, self._more = self._more, 0
        return more

    def _plain(self, chars: str, width: int) -> Iterator[Char]:
        """Yield *chars*, the last of which ends here, each of them *width* raw characters wide."""
        if chars:
            yield from self._lone()
        start = self._at - width * len(chars)
        for char in chars:
            yield Char(char, start, start + width)
            start += width

    def _lone(self) -> Iterator[Char]:
        high, self._high = self._high, None
        if high is not None:
            yield high._replace(value=_BROKEN)
