"""What an operator should know about a target that can be registered but may surprise him."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TypedDict

from elision.guards.phrases.normal import SEP, N
from elision.guards.phrases.patterns import Pattern, patterns
from elision.guards.targets import ForgetTarget, Phrase

FEW_LETTERS = 6
"""Forms below this length are mostly ordinary words (guard.md 1.6.3)."""
FEW_UNSPACED = 3
"""Likewise in scripts without spaces, where every match is inside a run of text."""

# Marks whose loss is a matter of spelling: Latin, Greek and Cyrillic accents, selectors.
_ACCENTS = re.compile(
    r"[\u0300-\u036f\u0483-\u0489\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    r"\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)


class Advice(TypedDict):
    """One warning, as the wire writes it.

    Attributes:
        code: ``few_letters``, ``common_word``, ``inside_common_word``, ``duplicate``,
            ``marks_dropped`` or ``nothing_enforced``.
        message: What it means and what to do; never the phrase itself.
        phrase: The phrase's index in the target; None if the whole target is meant.
    """

    code: str
    message: str
    phrase: int | None


def advise(target: ForgetTarget) -> tuple[Advice, ...]:
    """Return the warnings for a valid target, in the order of its phrases."""
    if not target.phrases:
        message = (
            "names only help to detect the subject; nothing is enforced until phrases are added"
        )
        return (Advice(code="nothing_enforced", message=message, phrase=None),)
    first: dict[str, int] = {}
    found = []
    for index, phrase in enumerate(target.phrases):
        form = N(phrase.text)
        for code, message in _of(phrase, form, first.setdefault(form, index), index):
            found.append(Advice(code=code, message=message, phrase=index))
    return tuple(found)


@lru_cache(maxsize=1)
def common_words() -> frozenset[str]:
    """Return the normal forms of the 2,000 commonest English words (see the file's head)."""
    lines = (
        files("elision.guards.phrases").joinpath("common_words.txt").read_text("utf-8").splitlines()
    )
    return frozenset(N(line) for line in lines if not line.startswith("#"))


@lru_cache(maxsize=1)
def _word_list() -> str:
    # Two line ends between words, so that no pattern of several words fits across them.
    return "\n" + "\n\n".join(sorted(common_words())) + "\n"


def _of(phrase: Phrase, form: str, first: int, index: int) -> Iterator[tuple[str, str]]:
    """Yield code and message of what is remarkable about one phrase of normal form *form*."""
    if first != index:
        yield "duplicate", f"it has the same normal form as phrases[{first}]; one of them will do"
    found = patterns(phrase)
    if len(form) < FEW_LETTERS and not (_is_unspaced(phrase) and len(form) >= FEW_UNSPACED):
        yield "few_letters", _few(len(form), bounded=found[0].form != "N")
    if form in common_words():
        yield (
            "common_word",
            "it is one of the 2,000 commonest English words and will be missed in many answers",
        )
    elif any(map(_meets_common_word, found)):
        yield (
            "inside_common_word",
            "it matches inside one of the 2,000 commonest English words; "
            "set boundary to yes and beta to 1 to match it as a whole only",
        )
    if not phrase.text.isascii() and _loses_sounds(phrase.text):
        yield (
            "marks_dropped",
            "its script writes vowels or other sounds as marks, which the normal form drops; "
            "it also matches words that differ only in these",
        )


def _is_unspaced(phrase: Phrase) -> bool:
    """Return whether the phrase's script has no word boundaries to ask for."""
    return patterns(replace(phrase, boundary="yes"))[0].form == "N"


def _meets_common_word(pattern: Pattern) -> bool:
    end = "\n" if pattern.closed else ""
    return pattern.text.replace(SEP, "\n") + end in _word_list()


def _few(n_letters: int, *, bounded: bool) -> str:
    if bounded:
        return f"it has {n_letters} letters or digits; it matches only between word boundaries"
    return f"it has {n_letters} letters or digits and no word boundaries; it matches inside words"


def _loses_sounds(text: str) -> bool:
    marks = (c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c)[0] == "M")
    return any(not _ACCENTS.match(mark) for mark in marks)
