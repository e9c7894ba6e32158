"""Names and phrases as whole words, and the parts by which people are called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from elision.agents.alu.words import Word, telling, words_of
from elision.guards.detection.form_index import FormIndex, WordIndex
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget

How: TypeAlias = Literal["literal", "alias"]

MOST_BEARERS: Final = 32
"""Targets that may share a name's part; one that more of them bear calls nobody."""
_LEAST_PART: Final = 4
_LEAST_INSIDE: Final = 9
_LEAST_UNSPACED: Final = 2
_INITIALS: Final = range(3, 6)


class Called(NamedTuple):
    """A place where a target is named.

    Attributes:
        target: Its index.
        how: By name or phrase, or by part of a name.
        start: First character.
        end: One past the last.
    """

    target: int
    how: How
    start: int
    end: int


class Names:
    """Every name and phrase of many targets. Immutable.

    Whole names are found as words, long ones and those of scripts without spaces inside them too.
    A surname, a given name or initials of three letters hint at a target, unless a registered name
    explains them: where *Jane Vane* is registered too, her name does not hint at *Harold Vane*.

    Args:
        targets: In the order that gives their indices.
    """

    def __init__(self, targets: Sequence[ForgetTarget]) -> None:
        every = [(at, text) for at, target in enumerate(targets) for text in _texts(target)]
        keyed = ((tuple(word.form for word in words_of(text)), at) for at, text in every)
        self._whole = WordIndex((keys, at) for keys, at in keyed if keys)
        inside = ((N(text), at) for at, text in every if _may_stand_inside(text))
        self._inside = FormIndex((form, at) for form, at in inside if form)
        parts: dict[str, set[int]] = defaultdict(set)
        for at, target in enumerate(targets):
            for part in _parts(target):
                parts[part].add(at)
        self._parts = {part: sorted(of) for part, of in parts.items() if len(of) <= MOST_BEARERS}

    def find(self, text: str, words: Sequence[Word]) -> Iterator[Called]:
        """Yield where targets are named in *text*, given with its words; parts last."""
        forms = [word.form for word in words]
        explained, found = set[int](), set[int]()
        for first, last, at in self._whole.find(forms):
            explained.update(range(first, last))
            found.add(at)
            yield Called(at, "literal", words[first].start, words[last - 1].end)
        for at in {at for _, _, at in self._inside.find(N(text))} - found:
            yield Called(at, "literal", 0, len(text))
        for n, word in enumerate(words):
            for at in self._parts.get(word.form, ()) if n not in explained else ():
                yield Called(at, "alias", word.start, word.end)


def _texts(target: ForgetTarget) -> Iterator[str]:
    yield from target.names
    yield from (phrase.text for phrase in target.phrases)


def _may_stand_inside(text: str) -> bool:
    form = N(text)
    if form and not any("a" <= char <= "z" or char.isdigit() for char in form):
        return len(form) >= _LEAST_UNSPACED and " " not in text
    return len(form) >= _LEAST_INSIDE


def _parts(target: ForgetTarget) -> Iterator[str]:
    for name in target.names:
        words = words_of(name)
        if len(words) > 1:
            yield from (w.form for w in telling(words) if len(w.form) >= _LEAST_PART)
        if len(words) in _INITIALS:
            yield "".join(word.form[0] for word in words)
