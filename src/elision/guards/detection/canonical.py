"""Canonical levels: how much of its spelling a text is stripped of before it is compared.

==  ==============================================================================================
L0  the raw text
L1  its skeleton: deletions carried out, what nothing shows left out, one case, one width, no
    accents, look-alikes as the Latin letters they pass for, one space for any run of blanks
L2  the letters and digits of L1: ``N`` of the text
L3  L2 with digits and signs that stand for letters read as those, and runs of one letter as one
==  ==============================================================================================

All but the deletions and the runs are defined per code point, as in
`elision.guards.phrases.normal`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final
from unicodedata import normalize

from elision.guards.phrases.normal import SEP, N, fold

BACKSPACE: Final = "\b"
LEET: Final = dict(zip("4@8(391!|l05$72", "aabcegiiiiosstz", strict=True))
_BLANKS: Final = re.compile(r"\s+")
_RUN: Final = re.compile(r"(.)\1+", re.DOTALL)
_CACHE_LIMIT: Final = 1 << 16


def typed(text: str) -> tuple[str, list[int] | None]:
    """Return what *text* shows once every backspace has taken a character with it.

    Returns:
        That text, and for each of its characters its index in *text*; None if nothing is taken.
    """
    if BACKSPACE not in text:
        return text, None
    kept: list[int] = []
    for at, char in enumerate(text):
        if char != BACKSPACE:
            kept.append(at)
        elif kept:
            kept.pop()
    return "".join(map(text.__getitem__, kept)), kept


def L1(text: str) -> str:  # noqa: N802 - the name it has in the literature
    """Return the skeleton of *text*.

    Source:
        Unicode Technical Standard 39, 4. Ours: deletions, the larger look-alike table, one case.
    """
    return _BLANKS.sub(" ", typed(text)[0].translate(_SKELETON))


def L2(text: str) -> str:  # noqa: N802
    """Return the letters and digits of *text*: `N`, deletions carried out before."""
    return N(typed(text)[0])


def L3(text: str) -> str:  # noqa: N802
    """Return `L2` of *text* with ``4`` for *a* and the like undone, and no letter twice in a row.

    Of two letters that one sign may stand for, one is taken on both sides: *l* becomes *i*.
    """
    return _RUN.sub(r"\1", typed(text)[0].translate(_LETTERS))


def unleeted(text: str) -> str:
    """Return `L3` of *text* before runs are shortened and without deletions: per code point."""
    return text.translate(_LETTERS)


def l3_symbols(text: str) -> Iterator[tuple[str, int]]:
    """Yield the symbols of `L3`, each with the index of the character that wrote it, or its run.

    Backspaces are taken for separators: carry them out before.
    """
    symbols = ((symbol, at) for at, char in enumerate(text) for symbol in unleeted(char))
    for symbol, run in groupby(symbols, key=lambda pair: pair[0]):
        yield symbol, next(run)[1]


class _Table(dict[int, str]):
    """A table for `str.translate`, filled per code point as it is asked, up to a limit."""

    def __init__(self, letters_only: bool) -> None:
        super().__init__()
        self._letters_only = letters_only

    def __missing__(self, code: int) -> str:
        image = _leet(chr(code)) if self._letters_only else _bare(chr(code))
        if len(self) < _CACHE_LIMIT:
            self[code] = image
        return image


def _bare(char: str) -> str:
    folded = fold(char)
    if SEP not in folded:
        return folded
    parts = normalize("NFKD", char).casefold()
    return "".join(fold(part) if fold(part) != SEP else part for part in parts)


def _leet(char: str) -> str:
    symbols = (LEET.get(symbol, symbol) for symbol in _bare(char))
    return "".join(symbol for symbol in symbols if fold(symbol) not in {SEP, ""})


_SKELETON: Final = _Table(letters_only=False)
_LETTERS: Final = _Table(letters_only=True)
