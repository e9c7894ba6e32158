"""Words of a name that was said, where they stand alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from elision.agents.alu.covering import Cover
from elision.agents.alu.overlay import in_case
from elision.agents.alu.pseudonyms import is_plain
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N

TITLES: Final = frozenset(
    "don dr frau herr lady lord madam miss monsieur mr mrs ms prof professor senor sir".split()
)
_BEFORE: Final = re.compile(
    r"(?P<ends>^|[.!?:;\n\"“(]\s*)?\b(?P<word>[^\W\d_]+)(?P<dot>\.?)[ \t]+$"
)
_LEAST: Final = 3
"""Letters of a word that stands for a whole name where it stands alone."""


class Lone:
    """Hides words of names that were found, where they stand alone.

    Args:
        covers: Those of the names.
    """

    def __init__(self, covers: Sequence[Cover]) -> None:
        self._instead = {
            old.casefold(): new
            for cover in covers
            for old, new in cover.words
            if len(old) >= _LEAST and N(old) not in common_words() and not is_plain(new)
        }
        words = "|".join(map(re.escape, sorted(self._instead, key=len, reverse=True)))
        pattern = rf"(?<!\w)(?P<word>{words})(?P<ending>s?)(?!\w)"
        self._pattern = re.compile(pattern, re.IGNORECASE) if words else None

    def hidden(self, text: str) -> str:
        """Return *text* with each of these words replaced, unless it is another name's."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._one(text, found), text)

    def _one(self, text: str, found: re.Match[str]) -> str:
        # What stands behind a genitive is no more of the name.
        end = len(text) if found["ending"] else found.end()
        if is_in_a_name(text, found.start(), end):
            return found[0]
        instead = self._instead.get(found["word"].casefold())
        if instead is None:
            return found[0]
        return in_case(found["word"], instead) + found["ending"]


def is_in_a_name(text: str, start: int, end: int) -> bool:
    """Return whether a word stands behind or before another capitalised one, as in a name."""
    if text[start : start + 2].isupper() and end - start > 1:
        return False
    joins = text[end : end + 1] == " " and text[end + 1 : end + 2].isupper()
    return joins or is_behind_a_name(text[:start])


def is_behind_a_name(before: str) -> bool:
    """Return whether *before* ends with a capitalised word that begins no sentence."""
    match = _BEFORE.search(before[-64:])
    if match is None or not match["word"][0].isupper() or match["word"].casefold() in TITLES:
        return False
    if match["dot"]:  # an initial's, or the end of a sentence
        return len(match["word"]) == 1
    return match["ends"] is None
