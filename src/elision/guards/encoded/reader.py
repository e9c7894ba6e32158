"""Follows a text through every writing of the phrases that is enforced on the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, Self

from elision.guards.detection.canonical import unleeted
from elision.guards.encoded.codes import Base64, Hex
from elision.guards.encoded.escapes import MEMORY, Escapes
from elision.guards.encoded.forms import EncodedSet, Form, collapsed, differences
from elision.guards.phrases.automaton import ROOT
from elision.guards.phrases.normal import N, fold
from elision.guards.phrases.tracker import Span
from elision.guards.phrases.unescape import Char

MOST_HELD: Final = 4096
"""Raw characters that are ever held; past them the oldest go, the text is still followed."""
FREE: Final = 4
"""Letters of a loose form that leave before anything is held: so many stand in any prose, and they
give nothing away. Once there are more, they are held until it is settled what becomes of them."""

_ENDING: Final = frozenset({"restrict", "refuse"})
_NARROW: Final = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_BACKSPACE: Final = "\b"


class EncodedReader:
    """One text on its way out; tells where a phrase stands in it, however it is written.

    Follows rotations and atbash by the steps between neighbouring letters, which no rotation
    changes; reversals and L3 by automata of their own; base64, hexadecimal pairs and escapes by
    decoding them as they come. Backspaces rub out what stands before them.

    Args:
        phrases: What is looked for.
        excluded: Owners whose phrases do not count.

    Attributes:
        phrases: The same.
        length: Raw characters read.
        frontier: Where begins what must be held.
    """

    __slots__ = (
        "_base64", "_erased", "_escapes", "_excluded", "_hex", "_last", "_leet", "_leet_last",
        "_recent", "_rotated", "_turned", "frontier", "length", "phrases",
    )  # fmt: skip

    def __init__(self, phrases: EncodedSet, *, excluded: frozenset[int] = frozenset()) -> None:
        self.phrases = phrases
        self._excluded = excluded
        self._leet = self._turned = self._rotated = ROOT
        self._leet_last = ""  # symbol, for runs
        self._last = -1  # letter, for differences
        self._recent: tuple[Char, ...] = ()
        self._base64 = Base64(phrases.patterns, excluded)
        self._hex = Hex(phrases.patterns, excluded)
        self._escapes = Escapes(phrases.patterns, excluded)
        self._erased = 0  # characters until the last backspace is out of memory
        self.length = 0
        self.frontier = 0

    def fork(self) -> Self:
        """Return another reader at the same place."""
        other = object.__new__(type(self))
        other.phrases, other._excluded, other.length = self.phrases, self._excluded, self.length
        other._leet, other._leet_last, other._turned = self._leet, self._leet_last, self._turned
        other._rotated, other._last, other._recent = self._rotated, self._last, self._recent
        other._base64, other._hex = self._base64.fork(), self._hex.fork()
        other._escapes, other._erased = self._escapes.fork(), self._erased
        other.frontier = self.frontier
        return other

    def skip(self, text: str) -> None:
        """Read the end of *text*, which the reply continues; what is complete in it stands."""
        text = text[-MOST_HELD:]
        self.read(Char(char, at, at + 1) for at, char in enumerate(text, start=-len(text)))
        self.length = self.frontier = 0

    def read(self, chars: Iterable[Char]) -> list[Span]:
        """Take in *chars*; return the spans that are settled now."""
        piece = tuple(chars)
        if not piece:
            return []
        out: list[Span] = []
        values = "".join([char.value for char in piece])
        code, written = (piece, values) if values.isascii() else _code(piece)
        if code:
            self._base64.read(code, written, out)
            self._hex.read(code, written, out)
            self._escapes.read(code, written, self._recent, out)
        out += self._loose(piece, values)
        self._recent = (*self._recent, *piece)[-MEMORY:]
        self.length = piece[-1].end
        self.frontier = self._begun()
        return out

    def finish(self) -> list[Span]:
        """Return the spans that the end of the text settles."""
        out: list[Span] = []
        for follower in self._followers:
            follower.finish(out)
        return out

    @property
    def _followers(self) -> tuple[Base64, Hex, Escapes]:
        return self._base64, self._hex, self._escapes

    def _loose(self, piece: Sequence[Char], values: str) -> Iterator[Span]:
        """Follow the forms letter by letter; where one is complete, find out where it stands."""
        phrases, normal = self.phrases, N(values)
        self._turned, turned = phrases.turned.run(self._turned, normal)
        letters = [ord(c) - 97 for c in normal if "a" <= c <= "z"]
        steps = differences([self._last, *letters] if self._last >= 0 else letters)
        self._rotated, rotated = phrases.rotated.run(self._rotated, steps)
        self._last = letters[-1] if letters else self._last
        yield from self._read_leet(piece, values)
        for strand, hits, spelled in (
            (phrases.turned, turned, N), (phrases.rotated, rotated, _latin),
        ):  # fmt: skip
            for index, n_behind in hits:
                form = strand.forms[index]
                if form.sign > 0 and form.letters[-1] == letters[len(letters) - 1 - n_behind]:
                    continue  # in clear, which the phrase mask sees
                places = _places((*self._recent, *piece), spelled)
                yield from self._span(form, places, n_behind)

    def _read_leet(self, piece: Sequence[Char], values: str) -> Iterator[Span]:
        strand = self.phrases.leet
        if self._erased or _BACKSPACE in values:
            yield from self._read_rubbed(piece)
            return
        symbols = collapsed(self._leet_last + unleeted(values))[len(self._leet_last) :]
        self._leet, hits = strand.run(self._leet, symbols)
        self._leet_last = symbols[-1:] or self._leet_last
        for index, n_behind in hits:
            places = _runs(_places((*self._recent, *piece), unleeted))
            yield from self._span(strand.forms[index], places, n_behind)

    def _read_rubbed(self, piece: Sequence[Char]) -> Iterator[Span]:
        """Read what backspaces leave of the recent text anew, for every character."""
        for at, char in enumerate(piece, start=1):
            self._erased = MEMORY if char.value == _BACKSPACE else max(0, self._erased - 1)
            places = _runs(_places(_rubbed((*self._recent, *piece[:at])), unleeted))
            self._leet, hits = self.phrases.leet.run(ROOT, "".join(p.symbol for p in places))
            self._leet_last = places[-1].symbol if places else ""
            for index, n_behind in hits:
                if not n_behind:
                    yield from self._span(self.phrases.leet.forms[index], places, 0)

    def _span(self, form: Form, places: list[_Place], n_behind: int) -> Iterator[Span]:
        if form.owner in self._excluded:
            return
        n_letters = len(form.letters) or len(form.symbols)
        last = len(places) - 1 - n_behind
        first = places[max(0, last - n_letters + 1)]
        action = self.phrases.patterns.owners[form.owner].action
        yield Span(first.start, places[last].end, action in _ENDING)

    def _begun(self) -> int:
        """Return from where on must be held; never more than `MOST_HELD` characters back."""
        length, phrases = self.length, self.phrases
        held = min(follower.frontier(length) for follower in self._followers)
        growing = phrases.leet.automaton.growing(self._leet)
        if growing > FREE:
            held = min(held, self._start_of(growing, lambda cs: _runs(_places(cs, unleeted))))
        for spelled, n_letters in (
            (N, phrases.turned.automaton.growing(self._turned)), (_latin, self._n_rotated),
        ):  # fmt: skip
            if n_letters > FREE:
                held = min(held, self._start_of(n_letters, partial(_places, spelled=spelled)))
        return max(held, length - MOST_HELD)

    def _start_of(self, n_last: int, spell: Callable[[Sequence[Char]], list[_Place]]) -> int:
        """Return where the last so many symbols of the recent text begin."""
        recent = _rubbed(self._recent) if self._erased else self._recent
        for n_chars in (4 * n_last, MEMORY):
            places = spell(recent[-n_chars:])
            if len(places) > n_last:
                break
        return places[max(0, len(places) - n_last)].start

    @property
    def _n_rotated(self) -> int:
        """Letters at the end that begin a phrase under a rotation other than none."""
        strand, state = self.phrases.rotated, self._rotated
        while (depth := strand.automaton.depth(state)) >= FREE:
            if strand.readings[state] & ~(1 << self._last) and strand.automaton.growing(state):
                return depth + 1
            state = strand.automaton.failure(state)
        return 0


def _code(piece: Sequence[Char]) -> tuple[tuple[Char, ...], str]:
    """Return *piece* as a decoder would be given it: full-width as ASCII, without the invisible."""
    kept = [char for char in piece if fold(char.value)]
    code = tuple(char._replace(value=char.value.translate(_NARROW)) for char in kept)
    return code, "".join([char.value for char in code])


class _Place(NamedTuple):
    """A symbol of a normal form, and the raw characters that wrote it."""

    symbol: str
    start: int
    end: int


def _latin(text: str) -> str:
    return "".join(c for c in N(text) if "a" <= c <= "z")


def _places(chars: Sequence[Char], spelled: Callable[[str], str]) -> list[_Place]:
    return [_Place(s, c.start, c.end) for c in chars for s in spelled(c.value)]


def _runs(places: list[_Place]) -> list[_Place]:
    """Return *places* with every run of one symbol as its first."""
    return [p for n, p in enumerate(places) if not n or places[n - 1].symbol != p.symbol]


def _rubbed(chars: Sequence[Char]) -> Sequence[Char]:
    """Return what is left of *chars* once backspaces have rubbed out what stands before them."""
    left: list[Char] = []
    for char in chars:
        if char.value != _BACKSPACE:
            left.append(char)
        elif left:
            left.pop()
    return left
