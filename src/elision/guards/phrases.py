"""From what must not be said to the patterns that find it, whatever the spelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Final, Literal, NamedTuple, TypeAlias

from elision.errors import TargetError
from elision.guards.automaton import ROOT, Automaton
from elision.guards.normal import SEP, N, N_b, aligned, fold
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
    separators do not count. ``boundary`` overrides that, except in scripts that put no spaces
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
    """Where the two automata of a `PatternSet` stand, and the bytes that wait for a character."""

    plain: int
    bounded: int
    pending: bytes = b""


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
        return Reading(
            self.plain.read(reading.plain, N(text)),
            self.bounded.read(reading.bounded, N_b(text)),
            reading.pending,
        )

    def echoed(self, user_text: str) -> frozenset[int]:
        """Return the owners whose phrase allows echo and occurs in the caller's own text."""
        if not any(owner.allow_echo for owner in self.owners):
            return frozenset()
        found = {pattern.owner for pattern, _, _ in self.find(user_text)}
        return frozenset(index for index in found if self.owners[index].allow_echo)

    def find(self, text: str) -> Iterator[tuple[Pattern, int, int]]:
        """Yield every pattern in *text* with its raw span, N first, in order of their ends."""
        for bounded in (False, True):
            automaton = self.bounded if bounded else self.plain
            patterns = self.bounded_patterns if bounded else self.plain_patterns
            if not patterns:
                continue
            symbols, offsets = aligned(text, bounded=bounded)
            state = automaton.step(ROOT, SEP) if bounded else ROOT
            for at, symbol in enumerate(symbols):
                state = automaton.step(state, symbol)
                for index in automaton.outputs(state):
                    pattern = patterns[index]
                    if pattern.closed and symbols[at + 1 : at + 2] not in {"", SEP}:
                        continue
                    first = at + 1 - len(pattern.text) + bounded
                    yield pattern, offsets[first], _with_marks(text, offsets[at] + 1)

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
