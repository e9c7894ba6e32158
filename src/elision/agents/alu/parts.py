"""Where names stand in full, and where parts of a person's stand near one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from elision.agents.alu.covering import WORD
from elision.agents.alu.pseudonyms import PARTICLES
from elision.agents.alu.words import Word, words_of
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget

_APART: Final = 12
"""Words from one part of a name to the other."""


class Near(NamedTuple):
    """A name, or a word of one near another word of it.

    Attributes:
        at: Which text it stands in.
        start: Its first character there.
        end: One past the last.
        target: Whose name it is.
        name: It.
    """

    at: int
    start: int
    end: int
    target: ForgetTarget
    name: str


class Parts:
    """Names by their first word, persons' by two parts. Immutable; flat in the names' number.

    Args:
        targets: Whose names.
    """

    def __init__(self, targets: Iterable[ForgetTarget]) -> None:
        self._others: dict[str, set[str]] = defaultdict(set)
        self._names: dict[tuple[str, str], list[tuple[ForgetTarget, str]]] = defaultdict(list)
        self._whole: dict[str, list[tuple[list[str], ForgetTarget, str]]] = defaultdict(list)
        for target in targets:
            for name in target.names:
                if forms := [word.form for word in words_of(name)]:
                    self._whole[forms[0]].append((forms, target, name))
                if target.kind == "person":
                    self._add(target, name)

    def __repr__(self) -> str:
        return f"Parts({len(self._whole)})"

    def _add(self, target: ForgetTarget, name: str) -> None:
        first, *rest = parts_of(name) or ("",)
        for other in {*rest} - {first}:
            self._others[first].add(other)
            self._names[first, other].append((target, name))

    def whole(self, texts: Sequence[str]) -> Iterator[Near]:
        """Yield where names stand word for word; names that are within a word are not found."""
        for at, text in enumerate(texts):
            words = words_of(text)
            for n, word in enumerate(words):
                for forms, target, name in self._whole.get(word.form, ()):
                    last = n + len(forms)
                    if [it.form for it in words[n:last]] == forms:
                        yield Near(at, word.start, words[last - 1].end, target, name)

    def near(self, texts: Sequence[str]) -> Iterator[Near]:
        """Yield the words of names whose first part and another stand near each other.

        Near is no more than `_APART` words away, over the borders of texts as well. A part that
        is one of the commonest words counts where it begins with a capital.
        """
        words = [(at, word) for at, text in enumerate(texts) for word in words_of(text)]
        for n, (_, first) in enumerate(words):
            others = self._others.get(first.form)
            if not others or not _counts(texts, *words[n]):
                continue
            for at, other in words[max(0, n - _APART) : n + _APART + 1]:
                if other.form in others and _counts(texts, at, other):
                    for target, name in self._names[first.form, other.form]:
                        yield Near(words[n][0], first.start, first.end, target, name)
                        yield Near(at, other.start, other.end, target, name)


def parts_of(name: str) -> list[str]:
    """Return the normal forms of those words of *name* that tell somebody apart, in order."""
    forms = [N(word) for word in WORD.findall(name) if word.casefold() not in PARTICLES]
    return [form for form in forms if len(form) > 1]


def _counts(texts: Sequence[str], at: int, word: Word) -> bool:
    return word.form not in common_words() or texts[at][word.start].isupper()
