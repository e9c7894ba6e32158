"""What a phrase looks like when its letters are replaced, reversed or rotated one and all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Final, NamedTuple

from elision.guards.detection.canonical import L3
from elision.guards.phrases.automaton import Automaton
from elision.guards.phrases.normal import N
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner
from elision.guards.targets import Phrase

LEAST_LOOSE: Final = 9
"""Letters from which on a phrase takes part: 563 made-up names of this length had no false hit in
315,743 characters of fiction, shorter ones had (alu_and_guardrails.md 3.1)."""
LEAST_DECODED: Final = 4
"""Letters from which on a phrase is looked for in decoded text."""
MOST_LETTERS: Final = 48
"""Letters of a form that are compared: what has so many in common is no accident."""


class Form(NamedTuple):
    """One writing of a phrase.

    Attributes:
        symbols: What the automaton reads.
        owner: Index of the phrase in its `PatternSet`.
        sign: Of a form of differences, +1 for rotations and -1 for mirrored ones; else 0.
        letters: Of such a form, the phrase's letters, 0 to 25.
    """

    symbols: str
    owner: int
    sign: int = 0
    letters: tuple[int, ...] = ()


def collapsed(symbols: str) -> str:
    """Return *symbols* with every run of one of them as a single one."""
    return symbols[:1] + "".join(after for before, after in pairwise(symbols) if before != after)


def letters_of(text: str) -> tuple[int, ...]:
    """Return the letters a to z of *text* in N, as 0 to 25; everything else is left out."""
    return tuple(ord(c) - 97 for c in N(text) if "a" <= c <= "z")


def differences(letters: Sequence[int], sign: int = 1) -> str:
    """Return the steps between neighbours modulo 26, which no rotation changes, as symbols.

    Args:
        letters: 0 to 25.
        sign: -1 turns every step round, as atbash does.
    """
    return "".join(chr(97 + sign * (after - before) % 26) for before, after in pairwise(letters))


class Strand:
    """One family of forms as an automaton.

    Attributes:
        forms: What is looked for, by pattern id.
        automaton: Over the symbols of the forms.
    """

    def __init__(self, forms: Iterable[Form]) -> None:
        self.forms = tuple(form for form in forms if form.symbols)
        self.automaton = Automaton([form.symbols for form in self.forms])

    def __bool__(self) -> bool:
        return bool(self.forms)

    def run(self, state: int, symbols: str) -> tuple[int, list[tuple[int, int]]]:
        """Return the state after *symbols*, and what they complete.

        Returns:
            The state, and for each form found its index and how many of *symbols* stand behind it.
        """
        automaton, hits = self.automaton, list[tuple[int, int]]()
        for at, symbol in enumerate(symbols, start=1):
            state = automaton.step(state, symbol)
            if state and automaton.matches(state):
                hits += ((index, len(symbols) - at) for index in automaton.outputs(state))
        return state, hits

    @cached_property
    def readings(self) -> list[int]:
        """For every state of a strand of differences, which letters may stand there unrotated.

        Bit *n* is set if some rotated form that passes the state has its letter *n* there; bit 26
        if a mirrored one passes. So a text that only begins a phrase in clear need not be held.
        """
        bits = [0] * len(self.automaton)
        for form in self.forms:
            for state, letter in zip(self.automaton.path(form.symbols), form.letters, strict=False):
                bits[state] |= 1 << (letter if form.sign > 0 else 26)
        return bits


class EncodedSet:
    """The phrases of one role, in every writing that is followed on the way out. Immutable.

    Args:
        phrases: Pairs of an owner and a hard phrase.

    Attributes:
        patterns: The phrases themselves, looked for in what is decoded.
        leet: L3 forms.
        turned: Reversed as a whole and word by word, over N.
        rotated: Differences of neighbouring letters, for every rotation and atbash.
    """

    def __init__(self, phrases: Iterable[tuple[Owner, Phrase]]) -> None:
        pairs = [pair for pair in phrases if len(N(pair[1].text)) >= LEAST_DECODED]
        self.patterns = PatternSet(pairs)
        loose = [(index, p) for index, (_, p) in enumerate(pairs) if _is_loose(p)]
        self.leet = Strand(_leet_form(index, phrase) for index, phrase in loose)
        self.turned = Strand(form for index, p in loose for form in _turned_forms(index, p))
        self.rotated = Strand(form for index, p in loose for form in _rotated_forms(index, p))
        # Compiled here, not on the first request.
        _ = self.patterns.start, self.patterns.plain, self.rotated.readings

    def __repr__(self) -> str:
        return f"EncodedSet({len(self.patterns.owners)} phrases)"

    def __bool__(self) -> bool:
        return bool(self.patterns)


def _is_loose(phrase: Phrase) -> bool:
    return len(N(phrase.text)) >= LEAST_LOOSE


def _cut(symbols: str, phrase: Phrase) -> str:
    """Return the part of a form that already counts: the phrase's share of it, up to the limit."""
    return symbols[: min(MOST_LETTERS, max(LEAST_LOOSE, ceil(phrase.beta * len(symbols) - 1e-9)))]


def _leet_form(owner: int, phrase: Phrase) -> Form:
    symbols = L3(phrase.text)
    # A form that collapsed to a few letters would be found anywhere.
    return Form(_cut(symbols, phrase) if len(symbols) >= LEAST_LOOSE - 2 else "", owner)


def _turned_forms(owner: int, phrase: Phrase) -> Iterator[Form]:
    words = [phrase.text.split(), re.split(r"[\W_]+", phrase.text)]
    turned = {N(phrase.text)[::-1], *("".join(N(word)[::-1] for word in ws) for ws in words)}
    for symbols in sorted(turned - {N(phrase.text)}):
        yield Form(_cut(symbols, phrase), owner)


def _rotated_forms(owner: int, phrase: Phrase) -> Iterator[Form]:
    letters = letters_of(phrase.text)[:MOST_LETTERS]
    if len(letters) >= LEAST_LOOSE and len(set(letters)) > 2:
        for sign in (1, -1):
            yield Form(differences(letters, sign), owner, sign, letters)
