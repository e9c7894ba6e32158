"""From a phrase or name to every form of it that is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Final, NamedTuple

from elision.guards.detection.canonical import L3
from elision.guards.detection.subjects import Subject
from elision.guards.detection.turned import (
    differences,
    opposite,
    orders,
    pig_latin,
    romanised,
    scrambled,
)
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.phrases.patterns import Pattern, patterns
from elision.guards.targets import Phrase

LOOSE_LETTERS: Final = 9
"""Letters from which a phrase is looked for inside words, turned, and at level L3."""
BOUND_LETTERS: Final = 4
"""Letters from which a shorter one is looked for at L3, between word boundaries."""
_LEAST_L3: Final = 7  # letters that are left once runs are shortened
_LEAST_STEPS: Final = 4  # different ones; fewer make a pattern that words may have by chance
_MOST_WORDS: Final = 8
MARKUP: Final = "\"'`“”‘’.,:;!?()[]{}<>*_"


class Whole(NamedTuple):
    """What a form in N stands for.

    Attributes:
        subject: Whose form it is.
        how: ``alias``, or how it was turned; empty as written.
        starts: Its letters that must begin a word, none else; None if separators do not count.
        closed: Whether a word must end where it does.
    """

    subject: Subject
    how: str
    starts: frozenset[int] | None = None
    closed: bool = False


class Turned(NamedTuple):
    """What a sequence of differences stands for.

    Attributes:
        subject: Whose it is.
        letters: Those that it was made from.
        reversed: Whether they stand in reverse.
    """

    subject: Subject
    letters: str
    reversed: bool


class Spelled:
    """One phrase or name with its forms.

    Args:
        subject: What it is.
        phrase: Its text; of a name, as if it were a phrase.

    Attributes:
        subject: As given.
        text: What the operator wrote.
    """

    def __init__(self, subject: Subject, phrase: Phrase) -> None:
        self.subject = subject
        self.text = phrase.text
        self._phrase = phrase
        self._patterns = patterns(phrase)
        self._letters = N(phrase.text)
        first = self._patterns[0].text.replace(SEP, "")
        self._is_loose = len(self._letters) >= LOOSE_LETTERS and first == self._letters

    def __repr__(self) -> str:
        return f"Spelled({self.subject!r})"

    def wholes(self) -> Iterator[tuple[str, Whole]]:
        """Yield the forms in N: as written, by other names, in other orders; no form twice."""
        seen = set[object]()
        for form, whole in self._every_whole():
            if (form, whole.starts) not in seen:
                seen.add((form, whole.starts))
                yield form, whole

    def _every_whole(self) -> Iterator[tuple[str, Whole]]:
        for pattern in self._patterns:
            yield self._of_pattern(pattern, "")
        for alias in self._aliases():
            for pattern in patterns(replace(self._phrase, text=alias)):
                yield self._of_pattern(pattern, "alias")
        if self._is_loose:
            for how, form in orders(self.text):
                yield form, Whole(self.subject, how)

    def _of_pattern(self, pattern: Pattern, how: str) -> tuple[str, Whole]:
        if pattern.form == "N":
            return pattern.text, Whole(self.subject, how)
        starts, n_letters = set[int](), 0
        for symbol in pattern.text[1:]:
            if symbol == SEP:
                starts.add(n_letters)
            else:
                n_letters += 1
        form = pattern.text.replace(SEP, "")
        return form, Whole(self.subject, how, frozenset(starts), pattern.closed)

    def _aliases(self) -> Iterator[str]:
        yield from filter(N, romanised(self.text))
        words = self.text.split()
        if self.subject.is_person and 1 < len(words) <= _MOST_WORDS:
            for cut in {1, len(words) - 1}:
                yield " ".join([*words[cut:], *words[:cut]])

    def l3(self) -> Iterator[tuple[str, Subject]]:
        """Yield the forms at L3 that may stand inside words."""
        if self._is_loose:
            for form in {L3(self.text), L3(self._letters)}:
                if len(form) >= _LEAST_L3:
                    yield form, self.subject

    def l3_words(self) -> Iterator[tuple[tuple[str, ...], Subject]]:
        """Yield the words at L3 of what is too short for that."""
        if BOUND_LETTERS <= len(self._letters) < LOOSE_LETTERS and self._phrase.beta == 1:
            keys = tuple(L3(word.strip(MARKUP)) for word in self.text.split())
            if all(keys) and len(keys) <= _MOST_WORDS:
                yield keys, self.subject

    def steps(self) -> Iterator[tuple[str, Turned]]:
        """Yield the differences of the letters, forwards and backwards, and their opposites."""
        for text in (self.text, *romanised(self.text)) if self._is_loose else ():
            letters = N(text)
            for turned in (letters, letters[::-1]):
                steps = differences(turned)
                if len(set(steps)) >= _LEAST_STEPS:
                    value = Turned(self.subject, turned, turned != letters)
                    yield steps, value
                    yield opposite(steps), value

    def scrambles(self) -> Iterator[tuple[tuple[str, ...], Subject]]:
        """Yield the words, each as the key of its letters in any order."""
        for words in self._words:
            yield tuple(map(scrambled, words)), self.subject

    def pig_latin(self) -> Iterator[tuple[tuple[str, ...], Subject]]:
        """Yield the words' keys in Pig Latin, once for each of its conventions."""
        for words in self._words:
            for keys in dict.fromkeys(pig_latin(words)):
                yield keys, self.subject

    @cached_property
    def _words(self) -> tuple[tuple[str, ...], ...]:
        """The words in N, as blanks divide them and as anything else does; none if too short."""
        if not self._is_loose:
            return ()
        divided = (map(N, self.text.split()), N_b(self.text).split(SEP))
        found = (tuple(filter(None, words)) for words in divided)
        return tuple(words for words in dict.fromkeys(found) if len(words) <= _MOST_WORDS)
