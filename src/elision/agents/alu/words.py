"""A text as words in normal form, with their places."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N

_WORD: Final = re.compile(r"[^\W_]+")
_ASKING: Final = frozenset(
    "am are aren been being cannot could couldn did didn does doesn doing don done had hadn hasn "
    "haven having hers herself himself isn itself mustn myself ourselves shan shouldn theirs "
    "themselves wasn weren whom wouldn yours yourself tell asked named called".split()
)
"""Words that stand in any question, and are not all among the commonest."""


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        form: In N, never empty.
        start: Its first character.
        end: One past its last.
    """

    form: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Return the words of *text*: maximal runs of letters and digits."""
    if text.isascii():  # where N is the lower case; ten times as fast
        small = text.lower()
        return [Word(match[0], *match.span()) for match in _WORD.finditer(small)]
    found = (Word(N(match[0]), *match.span()) for match in _WORD.finditer(text))
    return [word for word in found if word.form]


def telling(words: Iterable[Word]) -> list[Word]:
    """Return those of *words* that tell one subject from another.

    Numbers do; letters alone and the 2,000 commonest English words do not.
    """
    common = common_words()
    return [
        word
        for word in words
        if word.form.isdigit()
        or (len(word.form) > 1 and word.form not in common and word.form not in _ASKING)
    ]
