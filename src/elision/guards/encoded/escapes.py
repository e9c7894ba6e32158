"""Percent escapes, HTML entities and Unicode escapes, read as what they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.entities import html5
from typing import Final, Self

from elision.guards.encoded.codes import Decoded
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.tracker import Span
from elision.guards.phrases.unescape import Char

MEMORY: Final = 256
"""Raw characters before an escape that are read again together with it."""

_INTRODUCES: Final = frozenset("%\\&")
_ESCAPE: Final = re.compile(
    r"%([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\u\{([0-9A-Fa-f]{1,6})\}"
    r"|&#([0-9]{1,7});|&#[xX]([0-9A-Fa-f]{1,6});|&([A-Za-z][0-9A-Za-z]{1,23};)"
)
_BEGUN: Final = re.compile(
    r"%[0-9A-Fa-f]?|\\|\\x[0-9A-Fa-f]?|\\u[0-9A-Fa-f]{0,3}|\\u\{[0-9A-Fa-f]{0,6}"
    r"|&|&#[0-9]{0,7}|&#[xX][0-9A-Fa-f]{0,6}|&[A-Za-z][0-9A-Za-z]{0,23}"
)

_UNCLOSED: Final = re.compile(r"&#([0-9]{1,7})|&#[xX]([0-9A-Fa-f]{1,6})")


class Escapes:
    """Follows a text with its escapes undone, from the first complete one on.

    Nothing is followed until then; what stood before it is read again when it comes.
    """

    __slots__ = ("_begun", "_decoded", "_excluded", "_patterns", "_quiet")

    def __init__(self, patterns: PatternSet, excluded: frozenset[int]) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._begun: tuple[Char, ...] = ()
        self._decoded: Decoded | None = None
        self._quiet = 0

    def fork(self) -> Self:
        """Return another one at the same place."""
        other = object.__new__(type(self))
        other._patterns, other._excluded = self._patterns, self._excluded
        other._begun, other._quiet = self._begun, self._quiet
        other._decoded = None if self._decoded is None else self._decoded.fork()
        return other

    def read(self, chars: Sequence[Char], values: str, before: Sequence[Char],
             out: list[Span]) -> None:  # fmt: skip
        """Take in *chars*, which are *values*; append the phrases that they settle to *out*.

        Args:
            chars: What comes.
            values: The same, as text.
            before: What was read last before it.
            out: Where the spans go.
        """
        if self._decoded is None and not self._begun and _INTRODUCES.isdisjoint(values):
            return
        for at, char in enumerate(chars):
            self._read_one(char, [*before, *chars[: at + 1]], out)

    def _read_one(self, char: Char, seen: list[Char], out: list[Span]) -> None:
        if not self._begun and char.value not in _INTRODUCES:
            self._plain(char, out)
            return
        self._begun = (*self._begun, char)
        source = "".join(c.value for c in self._begun)
        if found := _ESCAPE.fullmatch(source):
            self._escape(found, seen, out)
        elif not _BEGUN.fullmatch(source):
            failed, self._begun = self._begun[:-1], ()
            if unclosed := _UNCLOSED.fullmatch(source[:-1]):  # browsers read it all the same
                self._number(unclosed, failed, seen[:-1], out)
            for one in failed if not unclosed else ():
                self._plain(one, out)
            if failed and char.value in _INTRODUCES:
                self._begun = (char,)
            else:
                self._plain(char, out)

    def _plain(self, char: Char, out: list[Span]) -> None:
        if self._decoded is None:
            return
        self._decoded.text(char, out)
        self._quiet += 1
        if self._quiet > MEMORY and self._decoded.frontier is None:
            self._decoded = None

    def _escape(self, found: re.Match[str], seen: list[Char], out: list[Span]) -> None:
        escape, self._begun = self._begun, ()
        decoded = self._followed(escape, seen)
        start, end = escape[0].start, escape[-1].end
        percent, octet, *codes, name = found.groups()
        if (byte := percent or octet) is not None:
            decoded.byte(int(byte, 16), start, end, out)
            return
        for value in html5.get(name, "") if name else _character(codes):
            decoded.text(Char(value, start, end), out)

    def _number(
        self, found: re.Match[str], escape: Sequence[Char], seen: list[Char], out: list[Span]
    ) -> None:
        """Read a character reference that nothing closes."""
        decimal, hexadecimal = found.groups()
        value = _character([None, None, decimal, hexadecimal])
        char = Char(value, escape[0].start, escape[-1].end)
        self._followed(escape, seen).text(char, out)

    def _followed(self, escape: Sequence[Char], seen: list[Char]) -> Decoded:
        """Return what follows the text from here on; at the first escape it reads what was seen."""
        self._quiet = 0
        if self._decoded is None:
            self._decoded = Decoded(self._patterns, self._excluded)
            settled: list[Span] = []  # in clear, so others have dealt with it
            for char in seen[-MEMORY : -len(escape)]:
                self._decoded.text(char, settled)
        return self._decoded

    def finish(self, out: list[Span]) -> None:
        """Take in the end of the text; append what it settles to *out*."""
        begun, self._begun = self._begun, ()
        if unclosed := _UNCLOSED.fullmatch("".join(char.value for char in begun)):
            self._number(unclosed, begun, [*begun], out)
        for char in begun if not unclosed else ():
            self._plain(char, out)
        if self._decoded is not None:
            out += self._decoded.tracker.finish()

    def frontier(self, length: int) -> int:
        """Return from where on the *length* raw characters read so far must be held."""
        if self._decoded is None:
            return length
        begun = self._begun[0].start if self._begun else length
        held = self._decoded.frontier
        return begun if held is None else min(begun, held)


def _character(codes: list[str | None]) -> str:
    bases = (16, 16, 10, 16)
    code = next(int(c, base) for c, base in zip(codes, bases, strict=True) if c is not None)
    return chr(code) if code < 0x110000 else "\ufffd"
