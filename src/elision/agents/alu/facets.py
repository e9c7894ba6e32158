"""Relations: what is said of the targets, found by its rare words however it is put."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from elision.agents.alu.words import Word, telling, words_of
from elision.guards.targets import ForgetTarget

MOST_SHARED: Final = 32
"""Attributes that one word, pair or triple may stand for; beyond that it tells nobody apart."""
_RUN: Final = 3
_WINDOW: Final = 40
"""Telling words within which an attribute's must stand; half of them from one window to the next"""
_ENOUGH: Final = 3
_HALF: Final = 0.5
_LEAST_ALONE: Final = 4


class Facet(NamedTuple):
    """Something that is said of a target.

    Attributes:
        target: The target's index.
        number: Its place among what is said of that target.
        words: Its telling words, the target's own names left out.
    """

    target: int
    number: int
    words: frozenset[str]


class Met(NamedTuple):
    """A facet met in a text.

    Attributes:
        facet: Which.
        share: Of its telling words, those that stand in the text, 0 to 1.
        start: First character of the first of them.
        end: One past the last.
    """

    facet: Facet
    share: float
    start: int
    end: int


class Facets:
    """What is said of many targets: answers, phrases and probes. Immutable.

    Looking a text up costs what the text is long, not what the register is large: a key is worth
    at most `MOST_SHARED` attributes, and one word of a large register that is too common by itself
    still counts together with its neighbours.

    Args:
        targets: In the order that gives their indices.
    """

    def __init__(self, targets: Sequence[ForgetTarget]) -> None:
        keys: dict[str, list[Facet]] = defaultdict(list)
        for index, target in enumerate(targets):
            for facet, words in _facets(index, target):
                for key in {key for key, *_ in _keys(words)}:
                    keys[key].append(facet)
        self._keys: Mapping[str, tuple[Facet, ...]] = {
            key: tuple(facets) for key, facets in keys.items() if len(facets) <= MOST_SHARED
        }

    def met(self, words: Sequence[Word]) -> Iterator[Met]:
        """Yield the facets met in a text, given as its words; one may come more than once.

        A facet is met where three of its telling words stand together, two that are half of it, or
        the only one if it has four letters.
        """
        rare = telling(words)
        step = _WINDOW // 2
        for at in range(0, max(len(rare) - step, 1), step):
            yield from self._in_window(rare[at : at + _WINDOW])

    def _in_window(self, rare: Sequence[Word]) -> Iterator[Met]:
        found: dict[Facet, dict[str, Word]] = defaultdict(dict)
        for key, run in _keys(rare):
            for facet in self._keys.get(key, ()):
                found[facet].update((word.form, word) for word in run)
        for facet, stood in found.items():
            share = len(stood) / len(facet.words)
            if _is_met(facet, len(stood), share):
                places = stood.values()
                start, end = min(w.start for w in places), max(w.end for w in places)
                yield Met(facet, share, start, end)


def _is_met(facet: Facet, n_words: int, share: float) -> bool:
    if n_words >= _ENOUGH:
        return True
    if n_words == 1:
        return share == 1 and len(next(iter(facet.words))) >= _LEAST_ALONE
    return share >= _HALF


def _facets(index: int, target: ForgetTarget) -> Iterator[tuple[Facet, list[Word]]]:
    own = {word.form for name in target.names for word in words_of(name)}
    said = [*target.answers, *(phrase.text for phrase in target.phrases), *target.probes]
    for number, text in enumerate(dict.fromkeys(said)):
        words = [word for word in telling(words_of(text)) if word.form not in own]
        if words:
            yield Facet(index, number, frozenset(word.form for word in words)), words


def _keys(words: Sequence[Word]) -> Iterator[tuple[str, Sequence[Word]]]:
    """Yield the words, pairs and triples that stand next to each other, with their words."""
    for at in range(len(words)):
        for n in range(1, _RUN + 1):
            run = words[at : at + n]
            if len(run) == n:
                yield " ".join(word.form for word in run), run
