"""Base64 and hexadecimal pairs, decoded as they are written, and scanned for phrases."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final, Self

from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.tracker import Span, Tracker
from elision.guards.phrases.unescape import Char
from elision.lexicon import decode

OPEN_RUN: Final = 16
"""Code characters from which on a run is held until it ends."""

_SEXTETS: Final = {
    c: n
    for last in ("+/", "-_")
    for n, c in enumerate(ascii_uppercase + ascii_lowercase + digits + last)
}
_LEAST_RUN: Final = 6
"""Code characters that four letters take at the least."""
_LONG_RUNS: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}")
_LAST_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]*\Z")
_LETTER: Final = rb"(?:[0-9A-Za-z]|[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2})"
_TEXTUAL: Final = re.compile(rb"(?:" + _LETTER + rb"[\x00-\x7f]?){3}" + _LETTER)
_WINDOW: Final = 20
"""Code characters behind which four letters show, with something between them."""
_URL_SAFE: Final = str.maketrans("-_", "+/")

_NIBBLES: Final = {c: int(c, 16) for c in "0123456789abcdefABCDEF"}
_BETWEEN: Final = frozenset(" \t\r\n\\xX%:,;&#uU-=")
_PAIRS: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[ \t\r\n\\xX%:,;&#uU=-]*(?:0x)?){4}")
_LAST_PAIRS: Final = re.compile(r"[0-9A-Fa-f \t\r\n\\xX%:,;&#uU=-]*\Z")
_LEAST_BYTES: Final = 4


class Decoded:
    """A tracker that is fed bytes: they are UTF-8, and what is not counts as a separator.

    Attributes:
        tracker: Positions are raw characters of the code.
    """

    __slots__ = ("_pending", "_since", "tracker")

    def __init__(self, patterns: PatternSet, excluded: frozenset[int]) -> None:
        self.tracker = Tracker(patterns, excluded=excluded)
        self._pending = b""
        self._since = 0

    def fork(self) -> Self:
        """Return another one at the same place."""
        other = object.__new__(type(self))
        other.tracker = self.tracker.fork()
        other._pending, other._since = self._pending, self._since
        return other

    def byte(self, number: int, start: int, end: int, out: list[Span]) -> None:
        """Take in one byte that the raw characters from *start* to *end* write."""
        if not self._pending:
            self._since = start
            if number < 0x80:
                out += self.tracker.read(Char(chr(number), start, end))
                return
        text, self._pending = decode(self._pending + bytes((number,)))
        for value in text:
            out += self.tracker.read(Char(value, self._since, end))

    def text(self, char: Char, out: list[Span]) -> None:
        """Take in one character as it stands."""
        self._pending = b""
        out += self.tracker.read(char)

    @property
    def frontier(self) -> int | None:
        """Where begins what may still become a phrase, or is one and unsettled; None: nowhere."""
        safe = self.tracker.safe()
        return safe if safe < self.tracker.length else None


class Base64:
    """Follows runs of base64 characters of either alphabet, at all four alignments.

    A line's end inside a run that is open does not end it. A run is decoded from the moment on
    when it may be text; to an ordinary word that hardly happens.
    """

    __slots__ = ("_ahead", "_decoded", "_excluded", "_patterns", "_run", "_start", "length")

    def __init__(self, patterns: PatternSet, excluded: frozenset[int]) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._run: tuple[str, ...] = ("",)  # what of it is not decoded
        self._start = 0
        self._ahead = (0, 0)  # the last bits, and how many there were
        self._decoded: tuple[Decoded, ...] = ()
        self.length = 0

    def fork(self) -> Self:
        """Return another one at the same place."""
        other = object.__new__(type(self))
        other._patterns, other._excluded = self._patterns, self._excluded
        other._run, other._start, other.length = self._run, self._start, self.length
        other._ahead = self._ahead
        other._decoded = tuple(d.fork() for d in self._decoded) if self._decoded else ()
        return other

    def read(self, chars: Sequence[Char], values: str, out: list[Span]) -> None:
        """Take in *chars*, which are *values*; append the phrases that they settle to *out*."""
        run = self._run[0]
        if not self._decoded and not (self.length >= OPEN_RUN and values[:1] in "\r\n"):
            whole = run[-_WINDOW:] + values
            if not any(_may_be_text(found) for found in _LONG_RUNS.findall(whole)):
                self._pass_over(chars, values)
                return
        for char in chars:
            self._read_one(char, out)
        if not self._decoded and self.length >= _LEAST_RUN:
            self._begin(out)

    def _pass_over(self, chars: Sequence[Char], values: str) -> None:
        """Take in what is no code: of it only the run at its end matters."""
        last = _LAST_RUN.search(values)
        n_last = 0 if last is None else len(last[0])
        if n_last < len(values):
            self._run, self.length = ("",), 0
        if n_last and not self.length:
            self._start = chars[-n_last].start
        self._run = (self._run[0] + values[len(values) - n_last :],)
        self.length += n_last

    def _read_one(self, char: Char, out: list[Span]) -> None:
        sextet = _SEXTETS.get(char.value)
        if sextet is None:
            if char.value not in "\r\n" or self.length < OPEN_RUN:
                self.finish(out)
            return
        if not self.length:
            self._start = char.start
        self.length += 1
        if self._decoded:
            self._bits(sextet, char.start, char.end, out)
        else:
            self._run = (self._run[0] + char.value,)

    def _begin(self, out: list[Span]) -> None:
        """Decode the run from its beginning."""
        run, self._run = self._run[0], ("",)
        self._decoded = tuple(Decoded(self._patterns, self._excluded) for _ in range(4))
        self._ahead = (0, 0)
        for at, value in enumerate(run, start=self._start):
            self._bits(_SEXTETS[value], at, at + 1, out)

    def _bits(self, sextet: int, start: int, end: int, out: list[Span]) -> None:
        """Take in six bits; every alignment writes a byte once it has eight."""
        bits, n_bits = self._ahead
        bits, n_bits = (bits << 6 | sextet) & 0xFFFF, n_bits + 6
        self._ahead = (bits, n_bits)
        for shift, decoded in zip((0, 2, 4, 6), self._decoded, strict=True):
            over = (n_bits - shift) % 8
            if n_bits - shift >= 8 and over < 6:
                decoded.byte(bits >> over & 0xFF, start - 1, end, out)

    def finish(self, out: list[Span]) -> None:
        """Take in the end of a run; append what it settles to *out*."""
        if not self._decoded and self.length >= _LEAST_RUN and _may_be_text(self._run[0]):
            self._begin(out)
        ended, self._decoded, self._run, self.length = self._decoded, (), ("",), 0
        for decoded in ended:
            out += decoded.tracker.finish()

    def frontier(self, length: int) -> int:
        """Return from where on the *length* raw characters read so far must be held."""
        if self.length >= OPEN_RUN:
            return self._start
        return _earliest(self._decoded, length)


def _may_be_text(run: str) -> bool:
    """Return whether four letters show in *run*, decoded at some alignment."""
    plain = run.translate(_URL_SAFE)
    for skip in range(4):
        part = plain[skip:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        if _TEXTUAL.search(binascii.a2b_base64(part + "=" * (-len(part) % 4))):
            return True
    return False


def _earliest(decoded: Iterable[Decoded], length: int) -> int:
    held = [at for one in decoded if (at := one.frontier) is not None]
    return min(held, default=length)


class Hex:
    r"""Follows runs of hexadecimal pairs: packed, spaced, ``\x48``, ``0x48``, ``%48``, ``=48``.

    Two readings: from the first digit behind a separator, and from the second.
    """

    __slots__ = (
        "_decoded", "_excluded", "_high", "_is_behind", "_patterns", "_start", "_waiting",
        "n_bytes",
    )  # fmt: skip

    def __init__(self, patterns: PatternSet, excluded: frozenset[int]) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._start = 0
        self._high: tuple[tuple[int, int] | None, ...] = (None, None)  # value and place, by reading
        self._is_behind = True  # whether the next digit is the first behind a separator
        self._waiting: tuple[tuple[int, int, int, int], ...] = ()  # bytes of a run still too short
        self._decoded: tuple[Decoded, ...] = ()
        self.n_bytes = 0

    def fork(self) -> Self:
        """Return another one at the same place."""
        other = object.__new__(type(self))
        other._patterns, other._excluded = self._patterns, self._excluded
        other._start, other._high, other._is_behind = self._start, self._high, self._is_behind
        other._waiting, other.n_bytes = self._waiting, self.n_bytes
        other._decoded = tuple(d.fork() for d in self._decoded) if self._decoded else ()
        return other

    def read(self, chars: Sequence[Char], values: str, out: list[Span]) -> None:
        """Take in *chars*, which are *values*; append the phrases that they settle to *out*."""
        last = _LAST_PAIRS.search(values)
        n_last = 0 if last is None else len(last[0])
        idle = not self._decoded and not self._waiting
        if idle and n_last < len(values) and not _PAIRS.search(values):
            self._end()
            chars = chars[len(values) - n_last :]
        for char in chars:
            self._read_one(char, out)

    def _read_one(self, char: Char, out: list[Span]) -> None:
        digit = _NIBBLES.get(char.value)
        if digit is not None:
            if not self.n_bytes and self._high == (None, None):
                self._start = char.start
            self._digit(digit, char, out)
        elif char.value in _BETWEEN:
            self._high, self._is_behind = (None, None), True
        else:
            self.finish(out)

    def _digit(self, digit: int, char: Char, out: list[Span]) -> None:
        high: list[tuple[int, int] | None] = []
        for reading, before in enumerate(self._high):
            if before is not None:
                high.append(None)
                self._byte(reading, before[0] << 4 | digit, before[1], char.end, out)
            else:
                high.append((digit, char.start) if reading == 0 or not self._is_behind else None)
        self._high, self._is_behind = tuple(high), False

    def _byte(self, reading: int, number: int, start: int, end: int, out: list[Span]) -> None:
        self.n_bytes += reading == 0
        if self._decoded:
            self._decoded[reading].byte(number, start, end, out)
            return
        self._waiting = (*self._waiting, (reading, number, start, end))
        if self.n_bytes >= _LEAST_BYTES:
            waiting, self._waiting = self._waiting, ()
            self._decoded = tuple(Decoded(self._patterns, self._excluded) for _ in range(2))
            for which, value, first, last in waiting:
                self._decoded[which].byte(value, first, last, out)

    def _end(self) -> None:
        self._high, self._is_behind, self._waiting, self.n_bytes = (None, None), True, (), 0

    def finish(self, out: list[Span]) -> None:
        """Take in the end of a run; append what it settles to *out*."""
        ended, self._decoded = self._decoded, ()
        self._end()
        for decoded in ended:
            out += decoded.tracker.finish()

    def frontier(self, length: int) -> int:
        """Return from where on the *length* raw characters read so far must be held."""
        if self.n_bytes >= OPEN_RUN // 2:
            return self._start
        return _earliest(self._decoded, length)
