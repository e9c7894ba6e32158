"""Follows a text and tells the spans of the phrases in it, and what may still become one."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final

from elision.guards.normal import SEP, fold
from elision.guards.phrases import Pattern, PatternSet, Reading
from elision.guards.unescape import Char

_ENDING: Final = frozenset({"restrict", "refuse"})
"""Actions that end the answer once a phrase is complete: too late then to choose otherwise."""


@dataclass(frozen=True, slots=True)
class Span:
    """A phrase found, or several that overlap.

    Attributes:
        start: First raw character.
        end: One past the last.
        refuse: Whether one of their targets wants the answer ended.
    """

    start: int
    end: int
    refuse: bool

    def united(self, other: Span) -> Span:
        """Return the span over both."""
        start, end = min(self.start, other.start), max(self.end, other.end)
        return Span(start, end, self.refuse or other.refuse)


class Tracker:
    """Follows a text and tells the spans of the phrases in it, and what may still become one.

    Longest match wins and overlapping spans unite, whatever the pieces in which the text comes.
    Positions are raw characters; text that came before the reply has negative ones.

    Args:
        patterns: The phrases.
        excluded: Owners whose phrases do not count.

    Attributes:
        length: Raw characters read.
    """

    __slots__ = (
        "_bounded", "_bounded_starts", "_excluded", "_found", "_open", "_patterns", "_plain",
        "_plain_starts", "length",
    )  # fmt: skip

    def __init__(self, patterns: PatternSet, *, excluded: Set[int] = frozenset()) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._plain, self._bounded, _ = patterns.start
        self._plain_starts: tuple[int, ...] = ()
        self._bounded_starts: tuple[int, ...] = (0,) if self._bounded else ()
        self._open: Span | None = None
        self._found: tuple[Span, ...] = ()
        self.length = 0

    def fork(self) -> Tracker:
        """Return another tracker at the same place."""
        other = object.__new__(Tracker)
        for name in Tracker.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def reading(self) -> Reading:
        """Where the automata stand."""
        return Reading(self._plain, self._bounded)

    @property
    def frontier(self) -> int:
        """Where the longest end of the text that may grow into a phrase begins."""
        plain = self._plain_starts[0] if self._plain_starts else self.length
        # The separator before a word is no part of what must be held.
        bounded = self._bounded_starts[1] if len(self._bounded_starts) > 1 else self.length
        return min(plain, bounded)

    def safe(self, *, limit: int | None = None) -> int:
        """Return where the text begins of which it is not settled yet what becomes of it.

        Args:
            limit: Most characters that are kept back only because they may grow into a phrase;
                what already is one does not count.
        """
        grows = self.frontier if limit is None else max(self.frontier, self.length - limit)
        spans = self._found if self._open is None else (*self._found, self._open)
        return min([grows, *(span.start for span in spans)])

    def skip(self, text: str) -> None:
        """Read *text* that the reply continues; what is complete in it is not the reply's."""
        for at, char in enumerate(text, start=-len(text)):
            for _ in self.read(Char(char, at, at + 1)):
                raise AssertionError("a span of the reply ends before it begins")

    def read(self, char: Char) -> Iterator[Span]:
        """Take in one character; yield the spans that are settled now."""
        self.length = char.end
        symbols = fold(char.value)
        if not symbols:
            self._extend(char)
        for symbol in symbols:
            self._step(symbol, char.start)
            yield from self._settled()
            if symbol == SEP:
                yield from self._close()
            else:
                self._match(char.end)
                yield from self._refused()

    def finish(self) -> Iterator[Span]:
        """Yield the spans that the end of the text settles."""
        yield from self._close()
        yield from self.settle()

    def settle(self) -> Iterator[Span]:
        """Yield the spans found so far without waiting for them to grow."""
        found, self._found = self._found, ()
        yield from found

    def _extend(self, char: Char) -> None:
        """Let accents and ignorable characters belong to the phrase they follow."""
        if char.start <= 0:
            return
        if self._open is not None and self._open.end == char.start:
            self._open = self._open.united(Span(char.start, char.end, refuse=False))
        if self._found and self._found[-1].end == char.start:
            self._add(Span(self._found[-1].start, char.end, refuse=False))

    def _step(self, symbol: str, at: int) -> None:
        patterns = self._patterns
        if symbol != SEP:
            self._plain = patterns.plain.step(self._plain, symbol)
            depth = patterns.plain.depth(self._plain)
            self._plain_starts = (*self._plain_starts, at)[-depth:] if depth else ()
        before, self._bounded = self._bounded, patterns.bounded.step(self._bounded, symbol)
        if symbol != SEP or self._bounded != before:
            depth = patterns.bounded.depth(self._bounded)
            self._bounded_starts = (*self._bounded_starts, at)[-depth:] if depth else ()

    def _settled(self) -> Iterator[Span]:
        """Yield the spans that nothing to come can overlap any more."""
        if self._found:
            frontier = self.frontier
            while self._found and self._found[0].end <= frontier:
                span, self._found = self._found[0], self._found[1:]
                yield span

    def _close(self) -> Iterator[Span]:
        """Accept the phrase that waited for a word boundary."""
        waited, self._open = self._open, None
        if waited is not None:
            self._add(waited)
            yield from self._refused()

    def _match(self, end: int) -> None:
        """Note what the last letter completed; a word that went on completed nothing."""
        self._open = None
        patterns = self._patterns
        for index in patterns.plain.outputs(self._plain):
            self._note(patterns.plain_patterns[index], self._plain_starts, end)
        for index in patterns.bounded.outputs(self._bounded):
            self._note(patterns.bounded_patterns[index], self._bounded_starts, end)

    def _note(self, pattern: Pattern, starts: tuple[int, ...], end: int) -> None:
        if pattern.owner in self._excluded:
            return
        first = starts[len(starts) - len(pattern.text) + (pattern.form != "N")]
        refuse = self._patterns.owners[pattern.owner].action in _ENDING
        span = Span(first, end, refuse)
        if pattern.closed:
            self._open = span if self._open is None else self._open.united(span)
        else:
            self._add(span)

    def _add(self, span: Span) -> None:
        if span.end <= 0:
            return
        apart = []
        for other in self._found:
            if other.start < span.end and span.start < other.end:
                span = span.united(other)
            else:
                apart.append(other)
        self._found = tuple(sorted([*apart, span], key=lambda s: s.start))

    def _refused(self) -> Iterator[Span]:
        """Yield at once what ends the answer, after what stands before it."""
        for span in self._found:
            if span.refuse:
                ready = tuple(s for s in self._found if s.start <= span.start)
                self._found = self._found[len(ready) :]
                yield from ready
                return
