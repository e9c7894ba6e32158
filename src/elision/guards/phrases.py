"""From what must not be said to the patterns that find it, whatever the spelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Final, Literal, NamedTuple, TypeAlias

from elision.errors import TargetError
from elision.guards.automaton import ROOT, Automaton
from elision.guards.normal import SEP, N, N_b, aligned, ends_inside, fold, word_starts
from elision.guards.targets import Action, ForgetTarget, Phrase

Form: TypeAlias = Literal["N", "N_b", "spelled"]

LONGEST_BOUNDED: Final = 8
"""Forms of up to this many letters match between word boundaries unless told otherwise."""
LEAST_HOT: Final = 6
"""A share of a phrase counts from this many letters on, or from the whole phrase if shorter."""
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One spelling family of a phrase.

    Attributes:
        text: What to look for: in N for form ``N``, else in N_b, beginning with `SEP` then.
        form: ``N``; ``N_b`` (between word boundaries); or ``spelled``, letter by letter.
        closed: Whether a word boundary must follow.
        owner: Index of the phrase in its `PatternSet`.
    """

    text: str = field(repr=False)  # what must not be said must not be logged either
    form: Form
    closed: bool
    owner: int = 0


class Owner(NamedTuple):
    """Whose a phrase is, without the phrase itself."""

    target_id: str
    phrase: int
    action: Action
    allow_echo: bool


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


def patterns(phrase: Phrase, *, owner: int = 0) -> tuple[Pattern, ...]:
    """Return what to look for so that no spelling of *phrase* gets by.

    Up to `LONGEST_BOUNDED` letters, a phrase matches between word boundaries, as written, with its
    words run together, and spelled out letter by letter; a longer one matches on N, where
    separators do not count. A capital inside a word begins a word as well (``isParis``).
    ``boundary`` overrides that, except in scripts that put no spaces
    between words: there N alone is meaningful.

    Raises:
        TargetError: If the phrase has no letter or digit, or its ``beta`` is not in (0, 1].
    """
    letters = N(phrase.text)
    if not letters:
        raise TargetError("a phrase needs at least one letter or digit", param="phrases")
    if not 0 < phrase.beta <= 1:
        raise TargetError(f"beta is {phrase.beta}, not in (0, 1]", param="phrases")
    hot = _n_hot(len(letters), phrase.beta)
    if not _is_bounded(phrase, letters):
        return (Pattern(text=letters[:hot], form="N", closed=False, owner=owner),)
    whole = hot == len(letters)
    joined, spelled = SEP + letters[:hot], SEP + SEP.join(letters[:hot])
    written = _first_letters(SEP + N_b(phrase.text).strip(SEP), hot)
    found = {
        joined: Pattern(text=joined, form="N_b", closed=whole, owner=owner),
        written: Pattern(text=written, form="N_b", closed=whole, owner=owner),
    }
    found.setdefault(spelled, Pattern(text=spelled, form="spelled", closed=True, owner=owner))
    return tuple(found.values())


def _n_hot(n_letters: int, beta: float) -> int:
    # 0.7 x 10 is a little more than 7 in floating point
    return max(ceil(beta * n_letters - 1e-9), min(LEAST_HOT, n_letters))


def _is_bounded(phrase: Phrase, letters: str) -> bool:
    if any(first <= ord(c) <= last for c in letters for first, last in _UNSPACED):
        return False
    if phrase.boundary == "auto":
        return len(letters) <= LONGEST_BOUNDED
    return phrase.boundary == "yes"


def _first_letters(words: str, n_letters: int) -> str:
    """Return the shortest prefix of *words* with that many letters; separators do not count."""
    for end, char in enumerate(words, start=1):
        n_letters -= char != SEP
        if not n_letters:
            return words[:end]
    return words


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


def owned(targets: Iterable[ForgetTarget]) -> Iterator[tuple[Owner, Phrase]]:
    """Yield every phrase of *targets* with its owner."""
    for target in targets:
        for index, phrase in enumerate(target.phrases):
            yield Owner(target.id, index, target.action, phrase.allow_echo), phrase
