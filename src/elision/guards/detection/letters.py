"""A text as its letters, with its words and the way back to the raw text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from elision.guards.detection.canonical import l3_symbols, typed, unleeted
from elision.guards.phrases.normal import SEP, N, N_b, aligned, fold, word_starts

_RUN = re.compile(r"(.)\1+", re.DOTALL)
_TOKEN = re.compile(r"\S+")
_INNER_CAPITAL = re.compile(r"(?<=[a-z0-9])[A-Z]")


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        letters: In N, never empty.
        start: Its first letter among the text's letters.
        end: One past its last.
    """

    letters: str
    start: int
    end: int


class Letters:
    """A text under inspection; what costs time is worked out when it is asked for.

    Args:
        raw: The text.

    Attributes:
        text: What it shows once backspaces are carried out.
        letters: That in N.
    """

    def __init__(self, raw: str) -> None:
        self.text, self._kept = typed(raw)
        self.letters = N(self.text)

    @cached_property
    def words(self) -> list[Word]:
        """Maximal runs of letters and digits."""
        return _words(N_b(self.text).split(SEP))

    @cached_property
    def spaced(self) -> list[Word]:
        """What blanks set apart, without the parts that hold no letter."""
        words = self.text.split()
        forms = {word: N(word) for word in {*words}}
        return _words([forms[word] for word in words])

    @cached_property
    def tokens(self) -> list[Word]:
        """What blanks set apart, as it stands, with its place in ``text``."""
        return [Word(match[0], *match.span()) for match in _TOKEN.finditer(self.text)]

    @property
    def has_deletions(self) -> bool:
        """Whether a backspace took something away."""
        return self._kept is not None

    @cached_property
    def hard(self) -> frozenset[int]:
        """Letters that begin a word because something else stands before; and the end."""
        ends = {0, len(self.letters)}
        return frozenset(ends.union(*((word.start, word.end) for word in self.words)))

    @cached_property
    def boundaries(self) -> frozenset[int]:
        """`hard`, and the capitals that begin a word in the middle of one."""
        starts = frozenset(_word_starts(self.text))
        if not starts:
            return self.hard
        soft = (at for at, origin in enumerate(self._origins) if origin in starts)
        return self.hard.union(soft)

    @cached_property
    def l3(self) -> str:
        """The text at level L3."""
        return _RUN.sub(r"\1", unleeted(self.text))

    @cached_property
    def _origins(self) -> list[int]:
        if self.text.isascii():
            return [at for at, char in enumerate(self.text) if char.isalnum()]
        return aligned(self.text, bounded=False)[1]

    @cached_property
    def _l3_origins(self) -> list[int]:
        return [at for _, at in l3_symbols(self.text)]

    def shown(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in ``text`` of the letters from *start* to *end*, with marks behind."""
        return self._span(self._origins, start, end)

    def shown_l3(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in ``text`` of the symbols of L3 from *start* to *end*."""
        return self._span(self._l3_origins, start, end)

    def _span(self, origins: list[int], start: int, end: int) -> tuple[int, int]:
        last = origins[end - 1] + 1
        while last < len(self.text) and not fold(self.text[last]):
            last += 1
        return origins[start], last

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """Return the raw span behind ``text[start:end]``; *end* is behind *start*."""
        if self._kept is None:
            return start, end
        return self._kept[start], self._kept[end - 1] + 1


def _word_starts(text: str) -> Iterable[int]:
    if text.isascii():
        return (match.start() for match in _INNER_CAPITAL.finditer(text))
    return word_starts(text)


def _words(words: list[str]) -> list[Word]:
    ends = accumulate(map(len, words))
    return [Word(word, end - len(word), end) for word, end in zip(words, ends, strict=True) if word]
