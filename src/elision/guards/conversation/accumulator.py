"""What the turns of a conversation spell together: the defence against extraction by the piece.

Every turn by itself may be harmless: three letters, a quoted syllable. So the automata that follow
a reply begin where the earlier turns left them, and a phrase that began there is not completed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from elision.contract import text_of
from elision.guards.phrases.automaton import Automaton
from elision.guards.phrases.normal import N, N_b

if TYPE_CHECKING:
    from collections.abc import Callable

    from elision.contract import Epoch, Request
    from elision.guards.encoded.encoded import Encoded
    from elision.guards.phrases.pattern_set import PatternSet
    from elision.guards.phrases.patterns import Pattern

MOST_STATES: Final = 64
"""Places that are kept per view; the deepest, for these have most of a phrase behind them."""

QUOTES: Final = "\"“”«»„‟`'"
_QUOTED: Final = re.compile(
    r"[\"“”«»„‟`]([^\"“”«»„‟`\n]{1,2000})[\"“”«»„‟`]|(?<!\w)'([^'\n]{1,2000})'(?!\w)"
)

States: TypeAlias = frozenset[int]


class Lane(NamedTuple):
    """One role's phrases in one normal form.

    Attributes:
        automaton: What the text is read by.
        normal: `N` or `N_b`.
        start: Where a text stands before it begins.
        patterns: What is found, by the automaton's pattern ids.
        phrases: What they belong to.
    """

    automaton: Automaton
    normal: Callable[[str], str]
    start: int
    patterns: tuple[Pattern, ...]
    phrases: PatternSet


class Turns(NamedTuple):
    """What the earlier turns come to: automaton states by lane, never text.

    A turn may have nothing to do with the rest, so it counts as read and as left out: all the
    places that come of it are kept.

    Attributes:
        epoch: Of the guard that the states belong to.
        whole: The turns one behind the other.
        lines: The last line of each.
        quoted: What stands in quotation marks.
    """

    epoch: Epoch
    whole: tuple[States, ...]
    lines: tuple[States, ...]
    quoted: tuple[States, ...]

    def united(self, other: Turns) -> Turns:
        """Return what both come to; of two epochs, the later one's."""
        if self.epoch != other.epoch:
            return max(self, other, key=lambda turns: turns.epoch)
        whole, lines, quoted = (
            tuple(one | two for one, two in zip(mine, theirs, strict=True))
            for mine, theirs in zip(self[1:], other[1:], strict=True)
        )
        return Turns(self.epoch, whole, lines, quoted)


@dataclass(frozen=True)
class Accumulator:
    """Reads the turns of a conversation for one tenant's phrases. Immutable.

    Attributes:
        encoded: The phrases, compiled.
        epoch: The tenant's epoch that they belong to.
    """

    encoded: Encoded
    epoch: Epoch = 0

    def __bool__(self) -> bool:
        return bool(self.encoded)

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """Up to two for every role that has phrases: over N and over N_b."""
        return tuple(lane for p in self.encoded.sets for lane in _lanes(p.patterns))

    @property
    def nothing(self) -> Turns:
        """What no turns come to."""
        start = tuple(frozenset({lane.start}) for lane in self.lanes)
        return Turns(self.epoch, start, start, start)

    def over(self, request: Request) -> Turns:
        """Return what the assistant's turns in *request* come to; about 1 ms per 1,000 words.

        A last turn that is to be continued is the reply's own beginning, and left out.
        """
        messages = request.messages[:-1] if request.continue_final else request.messages
        turns = self.nothing
        for message in messages:
            if message.get("role") == "assistant":
                turns = self.after(turns, text_of(message))
        return turns

    def after(self, turns: Turns, text: str) -> Turns:
        """Return *turns* with one more, of which *text* has left."""
        whole, lines, quoted = (
            tuple(
                _kept(states | _read(lane, states, view), lane)
                for lane, states in zip(self.lanes, before, strict=True)
            )
            for before, view in zip(
                turns[1:], (text, last_line(text), "".join(quoted_in(text))), strict=True
            )
        )
        return Turns(self.epoch, whole, lines, quoted)


def _lanes(phrases: PatternSet) -> Iterator[Lane]:
    start = phrases.start
    if plain := phrases.plain_patterns:
        yield Lane(phrases.plain, N, start.plain, plain, phrases)
    if bounded := phrases.bounded_patterns:
        yield Lane(phrases.bounded, N_b, start.bounded, bounded, phrases)


def last_line(text: str) -> str:
    """Return the last line of *text* that is not blank."""
    return text.rstrip().rpartition("\n")[2]


def quoted_in(text: str) -> Iterator[str]:
    """Yield what stands in quotation marks in *text*."""
    for found in _QUOTED.finditer(text):
        yield found[1] if found[1] is not None else found[2]


def _read(lane: Lane, states: States, text: str) -> States:
    """Return where *text* leads from *states*; they soon meet, so many are hardly dearer."""
    symbols = lane.normal(text)
    for at, symbol in enumerate(symbols):
        if len(states) == 1:
            return frozenset(lane.automaton.read(state, symbols[at:]) for state in states)
        states = frozenset(lane.automaton.step(state, symbol) for state in states)
    return states


def _kept(states: States, lane: Lane) -> States:
    if len(states) <= MOST_STATES:
        return states
    return frozenset(nlargest(MOST_STATES, states, key=lane.automaton.depth)) | {lane.start}
