"""Percent escapes, HTML entities, Unicode and short escapes, read as what they stand for."""

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
    r"|&#([0-9]{1,7});|&#[xX]([0-9A-Fa-f]{1,6});|&([A-Za-z][0-9A-Za-z]{1,23};)|\\([abfnrtv])"
)
_BEGUN: Final = re.compile(
    r"%[0-9A-Fa-f]?|\\|\\x[0-9A-Fa-f]?|\\u[0-9A-Fa-f]{0,3}|\\u\{[0-9A-Fa-f]{0,6}"
    r"|&|&#[0-9]{0,7}|&#[xX][0-9A-Fa-f]{0,6}|&[A-Za-z][0-9A-Za-z]{0,23}"
)

_UNCLOSED: Final = re.compile(r"&#([0-9]{1,7})|&#[xX]([0-9A-Fa-f]{1,6})")


class Escapes:
    """Follows a text with its escapes undone, from the first complete one on.

    Nothing is followed until then; what stood before it is read again when it comes. Two readings:
    in one a backslash and a letter, such as the ``n`` of a new line, stand for themselves, in the
    other for a space.
    """

    __slots__ = ("_begun", "_decoded", "_excluded", "_patterns", "_quiet", "_spaced")

    def __init__(self, patterns: PatternSet, excluded: frozenset[int]) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._begun: tuple[Char, ...] = ()
        self._decoded: Decoded | None = None
        self._spaced: Decoded | None = None  # with short escapes as spaces; None until there is one
        self._quiet = 0

    def fork(self) -> Self:
        """Return another one at the same place."""
        other = object.__new__(type(self))
        other._patterns, other._excluded = self._patterns, self._excluded
        other._begun, other._quiet = self._begun, self._quiet
        other._decoded = None if self._decoded is None else self._decoded.fork()
        other._spaced = None if self._spaced is None else self._spaced.fork()
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
        is_idle = self._decoded is None and self._spaced is None and not self._begun
        if is_idle and _INTRODUCES.isdisjoint(values):
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

    @property
    def _readings(self) -> tuple[Decoded, ...]:
        return tuple([one for one in (self._decoded, self._spaced) if one is not None])

    def _plain(self, char: Char, out: list[Span]) -> None:
        if readings := self._readings:
            self._text(readings, char, out)
            self._quiet += 1
            if self._quiet > MEMORY and all(one.frontier is None for one in readings):
                self._decoded = self._spaced = None

    @staticmethod
    def _text(readings: Sequence[Decoded], char: Char, out: list[Span]) -> None:
        """Have all read *char*; what both find counts once."""
        found: list[Span] = []
        for one in readings:
            one.text(char, found)
        out += dict.fromkeys(found)

    def _escape(self, found: re.Match[str], seen: list[Char], out: list[Span]) -> None:
        escape, self._begun = self._begun, ()
        start, end = escape[0].start, escape[-1].end
        percent, octet, *codes, name, short = found.groups()
        if short is not None:
            self._space(escape, seen, out)
        elif (byte := percent or octet) is not None:
            for decoded in self._followed(escape, seen):
                decoded.byte(int(byte, 16), start, end, out)
        else:
            followed = self._followed(escape, seen)
            for value in html5.get(name, "") if name else _character(codes):
                self._text(followed, Char(value, start, end), out)

    def _space(self, escape: Sequence[Char], seen: list[Char], out: list[Span]) -> None:
        """Read a short escape: as a space, and where escapes are followed as it stands."""
        self._quiet = 0
        if self._spaced is None:
            decoded = self._decoded
            self._spaced = self._begun_anew(escape, seen) if decoded is None else decoded.fork()
        self._spaced.text(Char(" ", escape[0].start, escape[-1].end), out)
        if self._decoded is not None:
            for char in escape:
                self._decoded.text(char, out)

    def _number(
        self, found: re.Match[str], escape: Sequence[Char], seen: list[Char], out: list[Span]
    ) -> None:
        """Read a character reference that nothing closes."""
        decimal, hexadecimal = found.groups()
        value = _character([None, None, decimal, hexadecimal])
        char = Char(value, escape[0].start, escape[-1].end)
        self._text(self._followed(escape, seen), char, out)

    def _followed(self, escape: Sequence[Char], seen: list[Char]) -> tuple[Decoded, ...]:
        """Return what follows the text from here on; at the first escape it reads what was seen."""
        self._quiet = 0
        if self._decoded is None:
            self._decoded = self._begun_anew(escape, seen)
        return self._readings

    def _begun_anew(self, escape: Sequence[Char], seen: list[Char]) -> Decoded:
        decoded = Decoded(self._patterns, self._excluded)
        settled: list[Span] = []  # in clear, so others have dealt with it
        for char in seen[-MEMORY : -len(escape)]:
            decoded.text(char, settled)
        return decoded

    def finish(self, out: list[Span]) -> None:
        """Take in the end of the text; append what it settles to *out*."""
        begun, self._begun = self._begun, ()
        if unclosed := _UNCLOSED.fullmatch("".join(char.value for char in begun)):
            self._number(unclosed, begun, [*begun], out)
        for char in begun if not unclosed else ():
            self._plain(char, out)
        for one in self._readings:
            out += one.tracker.finish()

    def frontier(self, length: int) -> int:
        """Return from where on the *length* raw characters read so far must be held."""
        if self._decoded is None and self._spaced is None:
            return length
        begun = self._begun[0].start if self._begun else length
        held = [at for one in self._readings if (at := one.frontier) is not None]
        return min([begun, *held])


def _character(codes: list[str | None]) -> str:
    bases = (16, 16, 10, 16)
    code = next(int(c, base) for c, base in zip(codes, bases, strict=True) if c is not None)
    return chr(code) if code < 0x110000 else "\ufffd"
