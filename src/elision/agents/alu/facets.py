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
_REACH: Final = 20
"""Telling words, before and behind, within which an attribute's other words count."""
_ENOUGH: Final = 3
_THIRD: Final = 1 / 3
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

    Looking a text up costs what the text is long, not what the register is large: a key leads to
    at most `MOST_SHARED` attributes, and words of a large register that are too common to be keys
    are so together with their neighbours.

    Args:
        targets: In the order that gives their indices.
    """

    def __init__(self, targets: Sequence[ForgetTarget]) -> None:
        found = [pair for at, target in enumerate(targets) for pair in _facets(at, target)]
        self._facets = [facet for facet, _ in found]
        self._keys = _keys([words for _, words in found])

    def met(self, words: Sequence[Word]) -> Iterator[Met]:
        """Yield the facets met in a text, given as its words; none twice.

        A facet is met where three of its telling words stand together, two that are a third of
        it, or the only one if it has four letters.
        """
        rare = telling(words)
        positions: dict[str, list[int]] = defaultdict(list)
        for at, word in enumerate(rare):
            positions[word.form].append(at)
        for number, places in self._hits([word.form for word in rare]).items():
            facet = self._facets[number]
            known = [form for form in facet.words if form in positions]
            if _is_met(facet, len(known)):
                around = (_around(at, known, positions) for at in places)
                best = max(around, key=lambda near: len({rare[n].form for n in near}))
                if (met := _met(facet, [rare[n] for n in best])) is not None:
                    yield met

    def _hits(self, forms: Sequence[str]) -> dict[int, list[int]]:
        """Return where the keys of a text lead: facets by number, with places in the text."""
        found: dict[int, list[int]] = defaultdict(list)
        for at in range(len(forms)):
            for n in range(1, _RUN + 1):
                for facet in self._keys.get(" ".join(forms[at : at + n]), ()):
                    found[facet].append(at)
        return found


def _around(at: int, forms: Sequence[str], positions: Mapping[str, Sequence[int]]) -> list[int]:
    return [n for form in forms for n in positions[form] if abs(n - at) <= _REACH]


def _met(facet: Facet, stood: Sequence[Word]) -> Met | None:
    n_words = len({word.form for word in stood})
    if not _is_met(facet, n_words):
        return None
    start, end = min(word.start for word in stood), max(word.end for word in stood)
    return Met(facet, n_words / len(facet.words), start, end)


def _is_met(facet: Facet, n_words: int) -> bool:
    share = n_words / len(facet.words)
    if n_words == 1:
        return share == 1 and len(next(iter(facet.words))) >= _LEAST_ALONE
    return n_words >= _ENOUGH or (n_words > 1 and share >= _THIRD)


def _facets(index: int, target: ForgetTarget) -> Iterator[tuple[Facet, list[str]]]:
    own = {word.form for name in target.names for word in words_of(name)}
    said = [*target.answers, *(phrase.text for phrase in target.phrases), *target.probes]
    for number, text in enumerate(dict.fromkeys(said)):
        forms = [word.form for word in telling(words_of(text)) if word.form not in own]
        if forms:
            yield Facet(index, number, frozenset(forms)), forms


def _keys(sequences: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Return the words that few facets hold, and the pairs and triples of all the other words."""
    kept: dict[str, list[int]] = {}
    for n in range(1, _RUN + 1):
        found: dict[str, list[int]] = defaultdict(list)
        for number, forms in enumerate(sequences):
            if sum(form not in kept for form in forms) < n:
                continue
            for run in {tuple(forms[at : at + n]) for at in range(len(forms) - n + 1)}:
                if not any(key in kept for key in _shorter(run)):
                    found[" ".join(run)].append(number)
        kept |= {key: numbers for key, numbers in found.items() if len(numbers) <= MOST_SHARED}
    return kept


def _shorter(run: Sequence[str]) -> Iterator[str]:
    for n in range(1, len(run)):
        for at in range(len(run) - n + 1):
            yield " ".join(run[at : at + n])
