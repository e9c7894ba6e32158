"""Many phrases as two automata, and where a text stands in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from elision.guards.phrases.automaton import ROOT, Automaton
from elision.guards.phrases.normal import SEP, N, N_b, aligned, ends_inside, fold, word_starts
from elision.guards.phrases.patterns import Form, Owner, Pattern, patterns
from elision.guards.targets import Phrase


class Hit(NamedTuple):
    """A phrase found in a text.

    Attributes:
        target_id: The target it belongs to.
        phrase: Index among that target's phrases.
        form: The normal form it was found on.
        start: First raw character.
        end: One past the last raw character, accents and ignorable characters behind it included.
    """

    target_id: str
    phrase: int
    form: Form
    start: int
    end: int


class Reading(NamedTuple):
    """Where a text stands in the automata of a `PatternSet`.

    Attributes:
        plain: State over N.
        bounded: State over N_b.
        behind: Further states over N_b, of readings that took a capital inside a word for the
            beginning of another.
        inside: Whether a capital would begin such a word now.
        pending: Bytes that wait for the rest of their character.
    """

    plain: int
    bounded: int
    behind: tuple[int, ...] = ()
    inside: bool = False
    pending: bytes = b""


class Trail(NamedTuple):
    """Where an automaton stands, and where in the raw text each symbol of its state begins."""

    state: int
    starts: tuple[int, ...]

    def step(self, automaton: Automaton, symbol: str, at: int) -> Trail:
        """Return the trail after *symbol*, which begins at raw index *at*."""
        state = automaton.step(self.state, symbol)
        if symbol == SEP and state == self.state:
            return self
        depth = automaton.depth(state)
        return Trail(state, (*self.starts, at)[-depth:] if depth else ())

    def growing(self, automaton: Automaton) -> tuple[int, ...]:
        """Return where the symbols begin that may yet grow into a pattern."""
        depth = automaton.growing(self.state)
        return self.starts[-depth:] if depth else ()

    def start_of(self, pattern: Pattern) -> int:
        """Return where *pattern*, which ends here, begins; the separator before it aside."""
        return self.starts[len(self.starts) - len(pattern.text) + (pattern.form != "N")]


class PatternSet:
    """The phrases of one role, as one automaton over N and one over N_b. Immutable.

    Args:
        phrases: Pairs of an owner and a phrase; their order gives the owners' indices.

    Attributes:
        owners: Whose each phrase is.
    """

    def __init__(self, phrases: Iterable[tuple[Owner, Phrase]]) -> None:
        pairs = tuple(phrases)
        self.owners = tuple(owner for owner, _ in pairs)
        every = [
            p for index, (_, phrase) in enumerate(pairs) for p in patterns(phrase, owner=index)
        ]
        self.plain_patterns = tuple(p for p in every if p.form == "N")
        self.bounded_patterns = tuple(p for p in every if p.form != "N")

    def __repr__(self) -> str:
        return f"PatternSet({len(self.owners)} phrases)"

    def __bool__(self) -> bool:
        return bool(self.owners)

    @cached_property
    def plain(self) -> Automaton:
        """The automaton over N."""
        return Automaton([p.text for p in self.plain_patterns])

    @cached_property
    def bounded(self) -> Automaton:
        """The automaton over N_b."""
        return Automaton([p.text for p in self.bounded_patterns])

    @cached_property
    def start(self) -> Reading:
        """The reading before any text: its beginning counts as a word boundary."""
        return Reading(ROOT, self.bounded.step(ROOT, SEP))

    def read(self, reading: Reading, text: str) -> Reading:
        """Return the reading after *text*; pending bytes are kept as they are."""
        bounded, behind = reading.bounded, reading.behind
        starts = word_starts(text, inside=reading.inside) if self.bounded_patterns else ()
        for start, end in pairwise(sorted({0, *starts, len(text)})):
            piece = N_b(text[start:end])
            bounded, behind = self.read_bounded(bounded, behind, piece, apart=start in starts)
        return Reading(
            self.plain.read(reading.plain, N(text)),
            bounded,
            behind,
            ends_inside(text, inside=reading.inside),
            reading.pending,
        )

    def read_bounded(
        self, bounded: int, behind: tuple[int, ...], piece: str, *, apart: bool
    ) -> tuple[int, tuple[int, ...]]:
        """Return where *piece*, in N_b, leads from the states over N_b.

        Args:
            bounded: The state that takes no capital for a beginning.
            behind: The others.
            piece: What comes next; no word begins inside a word in it.
            apart: Whether one does where *piece* begins.
        """
        automaton = self.bounded
        state = automaton.read(bounded, piece)
        if not (apart or behind):
            return state, ()
        begun = {*behind, automaton.step(bounded, SEP)} if apart else {*behind}
        if apart:
            begun.update(automaton.step(other, SEP) for other in behind)
        read = {automaton.read(other, piece) for other in begun}
        # A state of one symbol, the separator, is where no word has begun.
        return state, tuple(sorted(s for s in read if s != state and automaton.depth(s) > 1))

    def echoed(self, user_text: str) -> frozenset[int]:
        """Return the owners whose phrase allows echo and occurs in the caller's own text."""
        if not any(owner.allow_echo for owner in self.owners):
            return frozenset()
        found = {pattern.owner for pattern, _, _ in self.find(user_text)}
        return frozenset(index for index in found if self.owners[index].allow_echo)

    def find(self, text: str) -> Iterator[tuple[Pattern, int, int]]:
        """Yield every pattern in *text* with its raw span, N first, in order of their ends."""
        if self.plain_patterns:
            symbols, offsets = aligned(text, bounded=False)
            trail = Trail(ROOT, ())
            for at, symbol in enumerate(symbols):
                trail = trail.step(self.plain, symbol, offsets[at])
                for index in self.plain.outputs(trail.state):
                    pattern = self.plain_patterns[index]
                    yield pattern, trail.start_of(pattern), _with_marks(text, offsets[at] + 1)
        if self.bounded_patterns:
            yield from self._find_bounded(text)

    def _find_bounded(self, text: str) -> Iterator[tuple[Pattern, int, int]]:
        symbols, offsets = aligned(text, bounded=True)
        starts, automaton = set(word_starts(text)), self.bounded
        trails = {Trail(self.start.bounded, (0,))}
        for at, symbol in enumerate(symbols):
            where = offsets[at]
            if where in starts and symbols[at - 1] != SEP:
                trails |= {trail.step(automaton, SEP, where) for trail in trails}
            trails = {trail.step(automaton, symbol, where) for trail in trails}
            ends = symbols[at + 1 : at + 2] in {"", SEP} or offsets[at + 1] in starts
            for trail in trails:
                for index in automaton.outputs(trail.state):
                    pattern = self.bounded_patterns[index]
                    if ends or not pattern.closed:
                        end = _with_marks(text, where + 1)
                        yield pattern, trail.start_of(pattern), end

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Return what `find` finds, as hits, in the order of their beginnings."""
        found = {
            Hit(*self.owners[pattern.owner][:2], pattern.form, start, end)
            for pattern, start, end in self.find(text)
        }
        return tuple(sorted(found, key=lambda hit: (hit.start, hit.end, hit[:3])))

    def finds(self, text: str, *, excluded: Set[int] = frozenset()) -> bool:
        """Return whether *text* holds a phrase, those of *excluded* owners aside."""
        return any(pattern.owner not in excluded for pattern, _, _ in self.find(text))


def _with_marks(text: str, end: int) -> int:
    while end < len(text) and not fold(text[end]):
        end += 1
    return end
