"""A reply read on from where the conversation's earlier turns left off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from elision.guards.conversation.accumulator import QUOTES, Accumulator, Lane, States, Turns
from elision.guards.phrases.normal import SEP

if TYPE_CHECKING:
    from elision.guards.targets import Action

_MARKS: Final = frozenset(f"{QUOTES}\n")
_SEVERITY: Final[tuple[Action, ...]] = ("refuse", "restrict", "redact", "observe")


@dataclass(frozen=True, slots=True)
class Strip:
    """One lane of one view: the places where it may stand, in a reply that goes on.

    Attributes:
        lane: What is looked for.
        origin: Where the earlier turns left off.
        places: Where the text stands now; none once nothing that began before can go on.
        excluded: Owners whose phrases do not count.
        n_read: Symbols of the reply behind the origin.
        waiting: What is complete if a word ends here.
    """

    lane: Lane
    origin: States
    places: States
    excluded: frozenset[int] = frozenset()
    n_read: int = 0
    waiting: tuple[Action, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether anything may yet be completed."""
        return bool(self.places or self.waiting)

    def read(self, text: str, found: list[Action]) -> Strip:
        """Return the strip after *text*; what it completes is appended to *found*."""
        if not self.is_live:
            return self
        strip, lane = self, self.lane
        for symbol in lane.normal(text):
            waiting = strip.waiting
            found += waiting if symbol == SEP else ()
            n_read = strip.n_read + 1
            stepped = {lane.automaton.step(state, symbol) for state in strip.places}
            places = frozenset(s for s in stepped if lane.automaton.depth(s) > n_read)
            strip = replace(strip, places=places, n_read=n_read, waiting=())
            strip = replace(strip, waiting=tuple(strip._completed(found)))
        return strip

    def _completed(self, found: list[Action]) -> Iterator[Action]:
        """Append what is complete to *found*; yield what is so if a word ends here."""
        for state in self.places:
            for index in self.lane.automaton.outputs(state):
                pattern = self.lane.patterns[index]
                if len(pattern.text) <= self.n_read or pattern.owner in self.excluded:
                    continue
                action = self.lane.phrases.owners[pattern.owner].action
                if pattern.closed:
                    yield action
                else:
                    found.append(action)

    def again(self) -> Strip:
        """Return the strip at its origin."""
        return replace(self, places=self.origin, n_read=0, waiting=())

    def onward(self) -> Strip:
        """Return the strip with its origin here as well: another piece may follow."""
        return replace(self, origin=self.origin | self.places, n_read=0).again()


@dataclass(frozen=True, slots=True)
class Follower:
    """A reply in all three views; an immutable value.

    Attributes:
        whole: The reply itself.
        line: Its last line so far.
        quoted: What stands in quotation marks in it.
        is_quoting: Whether a quotation mark is open.
        line_ended: Whether the line is over, if anything but blanks follows.
    """

    whole: tuple[Strip, ...]
    line: tuple[Strip, ...]
    quoted: tuple[Strip, ...]
    is_quoting: bool = False
    line_ended: bool = False

    @classmethod
    def begin(cls, accumulator: Accumulator, turns: Turns, user_text: str = "") -> Follower:
        """Return the follower behind *turns*, before the reply's first character."""
        whole, line, quoted = (
            tuple(
                Strip(lane, states, states, lane.phrases.echoed(user_text))
                for lane, states in zip(accumulator.lanes, view, strict=True)
            )
            for view in turns[1:]
        )
        return cls(whole, line, quoted)

    @property
    def is_waiting(self) -> bool:
        """Whether something is complete should a word end here."""
        return any(s.waiting for view in (self.whole, self.line, self.quoted) for s in view)

    @property
    def _is_idle(self) -> bool:
        strips = (*self.whole, *self.line, *(self.quoted if self.is_quoting else ()))
        return not any(strip.is_live for strip in strips)

    def read(self, text: str, found: list[Action]) -> Follower:
        """Return the follower after *text*; the actions of completed phrases go to *found*."""
        if self._is_idle and not self.line_ended and _MARKS.isdisjoint(text):
            return self
        after = replace(self, whole=tuple(s.read(text, found) for s in self.whole))
        for piece in _pieces(text):
            after = after._piece(piece, found)
        return after

    def _piece(self, piece: str, found: list[Action]) -> Follower:
        if piece == "\n":
            return replace(self, line_ended=True, is_quoting=False)
        line, quoted, is_quoting = self.line, self.quoted, self.is_quoting
        line_ended = self.line_ended and not piece.strip()
        if self.line_ended and not line_ended:
            line = tuple(strip.again() for strip in line)
        line = tuple(strip.read(piece, found) for strip in line)
        if piece in QUOTES:
            for strip in quoted if is_quoting else ():
                found += strip.waiting
            quoted = tuple(strip.onward() if is_quoting else strip.again() for strip in quoted)
            is_quoting = not is_quoting
        elif is_quoting:
            quoted = tuple(strip.read(piece, found) for strip in quoted)
        return Follower(self.whole, line, quoted, is_quoting, line_ended)

    def finish(self, found: list[Action]) -> None:
        """Append to *found* what is complete now that the last word has ended."""
        for strip in (*self.whole, *self.line, *self.quoted):
            found += strip.waiting


def _pieces(text: str) -> Iterator[str]:
    """Yield *text* in pieces: a quotation mark, a line's end, or what stands between."""
    start = 0
    for at, char in enumerate(text):
        if char in _MARKS:
            if start < at:
                yield text[start:at]
            yield char
            start = at + 1
    if start < len(text):
        yield text[start:]


def strictest(actions: Iterable[Action]) -> Action | None:
    """Return the one of *actions* that leaves the least through; None if there is none."""
    return min(actions, key=_SEVERITY.index, default=None)
