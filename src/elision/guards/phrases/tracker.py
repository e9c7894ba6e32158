"""Follows a text and tells the spans of the phrases in it, and what may still become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Final, Self

from elision.guards.phrases.automaton import ROOT
from elision.guards.phrases.normal import SEP, ends_inside, fold
from elision.guards.phrases.pattern_set import PatternSet, Reading, Trail
from elision.guards.phrases.patterns import Pattern
from elision.guards.phrases.unescape import Char

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
    Where a span is cut out, a word ends before it and another begins behind it; phrases that need
    a word boundary are found at such seams as well. Positions are raw characters; text that came
    before the reply has negative ones.

    Args:
        patterns: The phrases.
        excluded: Owners whose phrases do not count.

    Attributes:
        length: Raw characters read.
    """

    __slots__ = (
        "_behind", "_bounded", "_excluded", "_found", "_glued", "_inside", "_is_seam", "_open",
        "_patterns", "_plain", "length",
    )  # fmt: skip

    def __init__(self, patterns: PatternSet, *, excluded: Set[int] = frozenset()) -> None:
        self._patterns = patterns
        self._excluded = excluded
        self._plain = Trail(patterns.start.plain, ())
        self._bounded = self._fresh(0)
        self._behind: tuple[Trail, ...] = ()  # trails that began at a seam or inside a word
        self._is_seam = False  # whether a span ended with the last letter
        self._inside = False  # whether a capital would begin a word in the middle of one
        self._open: Span | None = None  # waits for its word boundary
        self._glued: tuple[Span, ...] = ()  # would be complete, were a span to begin at their end
        self._found: tuple[Span, ...] = ()  # complete, but may yet unite with others
        self.length = 0

    def _fresh(self, at: int) -> Trail:
        state = self._patterns.start.bounded
        return Trail(state, (at,) if state != ROOT else ())

    def fork(self) -> Self:
        """Return another tracker at the same place."""
        other = object.__new__(type(self))
        for name in Tracker.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def reading(self) -> Reading:
        """Where the automata stand."""
        behind = tuple(sorted({trail.state for trail in self._behind}))
        return Reading(self._plain.state, self._bounded.state, behind, self._inside)

    @property
    def frontier(self) -> int:
        """Where the longest end of the text that may grow into a phrase begins."""
        patterns = self._patterns
        grows = [self.length, *self._plain.growing(patterns.plain)[:1]]
        for trail in (self._bounded, *self._behind):
            # The separator before a word is no part of what must be held.
            grows += trail.growing(patterns.bounded)[1:2]
        return min(grows)

    def safe(self, *, limit: int | None = None) -> int:
        """Return where the text begins of which it is not settled yet what becomes of it.

        Args:
            limit: Most characters that are kept back only because they may grow into a phrase;
                what already is one does not count.
        """
        grows = self.frontier if limit is None else max(self.frontier, self.length - limit)
        spans = (*self._found, *self._glued, *((self._open,) if self._open else ()))
        starts: list[int] = [span.start for span in spans]
        return min([grows, *starts])

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
        elif self._inside and char.value.isupper():
            yield from self._close()
            self._begin_word(char.start)
        self._inside = ends_inside(char.value, inside=self._inside)
        for symbol in symbols:
            self._step(symbol, char.start)
            if symbol == SEP:
                yield from self._close()
                yield from self._settled(self.frontier)
            else:  # accents may follow, so what ends with this letter waits for the next
                yield from self._settled(self._begun())
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

    def _begin_word(self, at: int) -> None:
        """Follow also the readings in which a word begins at *at*, inside another."""
        step = self._patterns.bounded
        trails = (self._bounded, *self._behind)
        begun = {trail.step(step, SEP, at) for trail in trails} - {*trails}
        self._behind = (*self._behind, *begun)

    def _extend(self, char: Char) -> None:
        """Let accents and ignorable characters belong to the phrase they follow."""
        if char.start <= 0:
            return
        if self._open is not None and self._open.end == char.start:
            self._open = self._open.united(Span(char.start, char.end, refuse=False))
        if self._found and self._found[-1].end == char.start:
            self._add(Span(self._found[-1].start, char.end, refuse=False))

    def _step(self, symbol: str, at: int) -> None:
        bounded = self._patterns.bounded
        if symbol != SEP:
            self._plain = self._plain.step(self._patterns.plain, symbol, at)
        if self._is_seam and symbol != SEP:
            self._behind = (*self._behind, self._fresh(at))
        self._is_seam = False
        self._bounded = self._bounded.step(bounded, symbol, at)
        if self._behind:
            stepped = (trail.step(bounded, symbol, at) for trail in self._behind)
            self._behind = tuple(t for t in stepped if len(t.starts) > 1 and t != self._bounded)

    def _begun(self) -> int:
        """Return where the longest end of the text that begins a phrase, or is one, begins."""
        bounded = [start for trail in (self._bounded, *self._behind) for start in trail.starts[1:2]]
        return min([self.length, *self._plain.starts[:1], *bounded])

    def _settled(self, frontier: int) -> Iterator[Span]:
        """Yield the spans before *frontier*: nothing to come can overlap them any more."""
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
        if self._open is not None or self._glued:
            self._keep_glued()
        patterns, plain = self._patterns, self._plain
        if patterns.plain.matches(plain.state):
            self._note(patterns.plain_patterns, patterns.plain.outputs(plain.state), plain, end)
        for trail in (self._bounded, *self._behind):
            if patterns.bounded.matches(trail.state):
                outputs = patterns.bounded.outputs(trail.state)
                self._note(patterns.bounded_patterns, outputs, trail, end)

    def _keep_glued(self) -> None:
        """Remember what would be a word if a span began where it ends, as long as one may."""
        glued = (*self._glued, *((self._open,) if self._open else ()))
        begun = min(self._plain.starts, default=self.length)
        self._open, self._glued = None, tuple(span for span in glued if begun <= span.end)

    def _note(
        self, patterns: tuple[Pattern, ...], outputs: Iterable[int], trail: Trail, end: int
    ) -> None:
        for index in outputs:
            pattern = patterns[index]
            if pattern.owner in self._excluded:
                continue
            action = self._patterns.owners[pattern.owner].action
            span = Span(trail.start_of(pattern), end, action in _ENDING)
            if pattern.closed:
                self._open = span if self._open is None else self._open.united(span)
            else:
                self._is_seam = True
                self._add(span)

    def _add(self, span: Span) -> None:
        if span.end <= 0:
            return
        for word in self._glued:
            if word.end == span.start:
                span = span.united(word)
        apart = []
        for other in self._found:
            if other.start < span.end and span.start < other.end:
                span = span.united(other)
            else:
                apart.append(other)
        self._found = tuple(sorted([*apart, span], key=lambda s: s.start))

    def _refused(self) -> Iterator[Span]:
        """Yield at once what ends the answer, after what stands before it; it is never let go."""
        for index, span in enumerate(self._found):
            if span.refuse:
                before, self._found = self._found[:index], self._found[index:]
                yield from (*before, span)
                return
