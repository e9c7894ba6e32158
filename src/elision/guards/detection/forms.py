"""Every form in which `elision.guards.detection.check` looks for phrases and names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from elision.guards.detection.canonical import L1, L3
from elision.guards.detection.form_index import FormIndex, WordIndex
from elision.guards.detection.letters import Letters, Word
from elision.guards.detection.spelled import MARKUP, Spelled, Whole
from elision.guards.detection.subjects import Subject
from elision.guards.detection.turned import differences, rotation, scrambled
from elision.guards.targets import Phrase

_DIGITS_AND_SIGNS: Final = frozenset("4@8(391!|05$72")


class Place(NamedTuple):
    """Where a subject stands in a text.

    Attributes:
        subject: Which.
        level: ``L0`` to ``L3``, or how it was turned.
        start: First character of the text.
        end: One past the last.
    """

    subject: Subject
    level: str
    start: int
    end: int


class Forms:
    """All forms of many phrases and names. Immutable.

    Args:
        subjects: What to look for.
    """

    def __init__(self, subjects: Iterable[tuple[Subject, Phrase]]) -> None:
        every = [Spelled(subject, phrase) for subject, phrase in subjects]
        self._texts = {spelled.subject: spelled.text for spelled in every}
        wholes = [whole for spelled in every for whole in spelled.wholes()]
        self._inside = FormIndex((form, it) for form, it in wholes if it.starts is None)
        self._bounded = FormIndex((form, it) for form, it in wholes if it.starts is not None)
        self._l3 = FormIndex(form for spelled in every for form in spelled.l3())
        self._steps = FormIndex(form for spelled in every for form in spelled.steps())
        self._l3_words = WordIndex(keys for spelled in every for keys in spelled.l3_words())
        self._scrambled = WordIndex(keys for spelled in every for keys in spelled.scrambles())
        self._pig = WordIndex(keys for spelled in every for keys in spelled.pig_latin())

    def places(self, text: str, *, thorough: bool = True) -> Iterator[Place]:
        """Yield where subjects stand in *text*, the plainest levels first.

        Args:
            text: Any text.
            thorough: Whether to look at everything; else for long phrases at level L2 only.
        """
        read = Letters(text)
        for place in self._shown(read) if thorough else self._inside_words(read):
            start, end = read.raw(place.start, place.end)
            yield place._replace(start=start, end=end)

    def _shown(self, read: Letters) -> Iterator[Place]:
        yield from self._inside_words(read)
        yield from self._between_words(read)
        yield from self._in_l3(read)
        yield from self._in_steps(read)
        yield from self._in_words(read)

    def _inside_words(self, read: Letters) -> Iterator[Place]:
        for start, end, whole in self._inside.find(read.letters):
            yield self._place(read, start, end, whole)

    def _between_words(self, read: Letters) -> Iterator[Place]:
        if len(self._bounded):
            places = sorted(read.boundaries)
            for start, end, whole in self._bounded.find(read.letters, places):
                if _is_bounded(read, start, end, whole):
                    yield self._place(read, start, end, whole)

    def _place(self, read: Letters, start: int, end: int, whole: Whole) -> Place:
        span = read.shown(start, end)
        return Place(whole.subject, whole.how or self._level(read, span, whole), *span)

    def _level(self, read: Letters, span: tuple[int, int], whole: Whole) -> str:
        shown, text = read.text[slice(*span)], self._texts[whole.subject]
        if text.startswith(shown) and not read.has_deletions:
            return "L0"
        return "L1" if L1(text).startswith(L1(shown)) else "L2"

    def _in_l3(self, read: Letters) -> Iterator[Place]:
        if len(self._l3):
            for start, end, subject in self._l3.find(read.l3):
                yield Place(subject, "L3", *read.shown_l3(start, end))
        if self._l3_words and not _DIGITS_AND_SIGNS.isdisjoint(read.text):
            yield from self._in_l3_words(read)

    def _in_l3_words(self, read: Letters) -> Iterator[Place]:
        words = read.tokens
        forms = {word.letters: L3(word.letters.strip(MARKUP)) for word in words}
        keys = [forms[word.letters] for word in words]
        for first, last, subject in self._l3_words.find(keys):
            span = words[first].start, words[last - 1].end
            if any(char in _DIGITS_AND_SIGNS for char in read.text[slice(*span)].strip(MARKUP)):
                yield Place(subject, "L3", *span)

    def _in_steps(self, read: Letters) -> Iterator[Place]:
        if not len(self._steps):
            return
        for start, end, turned in self._steps.find(differences(read.letters)):
            steps, mirrored = rotation(turned.letters, read.letters[start : end + 1])
            if not steps and not mirrored:
                continue
            how = "atbash" if mirrored else f"rot{steps}"
            if mirrored and steps:
                how += f">rot{steps}"
            how += ">reversed" * turned.reversed
            yield Place(turned.subject, how, *read.shown(start, end + 1))

    def _in_words(self, read: Letters) -> Iterator[Place]:
        if not self._scrambled:
            return
        for words in (read.words, read.spaced):
            forms = {word.letters: scrambled(word.letters) for word in words}
            keys = [forms[word.letters] for word in words]
            for first, last, subject in self._scrambled.find(keys):
                yield self._word_place(read, words, first, last, subject, "scrambled")
            if not any(word.letters.endswith("ay") for word in words):
                continue
            pig = [scrambled(w.letters[:-2]) if w.letters.endswith("ay") else "" for w in words]
            for first, last, subject in self._pig.find(pig):
                yield self._word_place(read, words, first, last, subject, "Pig Latin")

    def _word_place(
        self, read: Letters, words: list[Word], first: int, last: int, subject: Subject, how: str
    ) -> Place:
        return Place(subject, how, *read.shown(words[first].start, words[last - 1].end))


def _is_bounded(read: Letters, start: int, end: int, whole: Whole) -> bool:
    """Return whether the text has its word boundaries between *start* and *end* where *whole* has.

    A capital may begin a word and need not; anything else that separates does.
    """
    assert whole.starts is not None
    if whole.closed and end not in read.boundaries:
        return False
    inner = {start + at for at in whole.starts}
    between = (at for at in range(start + 1, end) if at in read.hard)
    return inner <= read.boundaries and inner.issuperset(between)
