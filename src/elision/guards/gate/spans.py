"""Spans: pieces of a text that begin and end with a word."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from elision.guards.phrases.normal import N

Salience: TypeAlias = Mapping[str, float]
"""Weight of the words, in N, that tell a target's probes from ordinary text."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\s{_UNSPACED}]{{1,32}}")
_SPACE = re.compile(r"\s+")


class Span(NamedTuple):
    """A candidate: words ``[first, last)`` of a document, slice ``[start, end)`` of its text."""

    document: int
    first: int
    last: int
    start: int
    end: int


class Document:
    """A text with its words and where they stand.

    A word is a run of up to 32 characters without a space; in scripts that put none, of two.

    Args:
        index: Its number, for spans.
        text: Itself.
    """

    def __init__(self, index: int, text: str) -> None:
        self.index = index
        self.text = text
        found = [(match.start(), match.end()) for match in _WORD.finditer(text)]
        self.starts = [start for start, _ in found]
        self.ends = [end for _, end in found]

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.starts)

    def words(self, first: int, last: int) -> Span:
        """Return the span of the words ``[first, last)``."""
        return Span(self.index, first, last, self.starts[first], self.ends[last - 1])

    def within(self, start: int, end: int) -> Span | None:
        """Return the span of the whole words in ``text[start:end]``, if there are any."""
        first, last = bisect_left(self.starts, start), bisect_right(self.ends, end)
        return self.words(first, last) if first < last else None

    def weights(self, salience: Salience) -> list[float]:
        """Return the running sum of the words' salience, beginning with 0."""
        if not salience:
            return [0.0] * (len(self) + 1)
        pairs = zip(self.starts, self.ends, strict=True)
        each = (salience.get(N(self.text[start:end]), 0.0) for start, end in pairs)
        return list(accumulate(each, initial=0.0))


def distinct(documents: Sequence[Document], spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Return the different texts of *spans*, white space made even, each with where it stands."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        text = documents[span.document].text[span.start : span.end]
        found.setdefault(_SPACE.sub(" ", text).strip(), []).append(span)
    return found


def are_covered(documents: Sequence[Document], spans: Iterable[Span]) -> bool:
    """Return whether every word of *documents* stands in one of *spans*."""
    reached = [0] * len(documents)
    for span in sorted(spans):
        if span.first <= reached[span.document]:
            reached[span.document] = max(reached[span.document], span.last)
    return all(n >= len(doc) for n, doc in zip(reached, documents, strict=True))
