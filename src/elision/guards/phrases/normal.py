"""Normal forms: what is left of a text once its spelling no longer matters.

``N`` keeps the letters and digits; ``N_b`` also keeps one `SEP` for every run of anything else, so
that words can be told from parts of words. Both are defined per code point, hence

    N(a + b) = N(a) + N(b)

holds for any cut, even between a letter and its accent. On that the guard stands: what the tokens
of a text come to, one by one, is what the text comes to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Final
from unicodedata import category, digit, normalize

from elision.guards.phrases.confusables import CONFUSABLES

SEP: Final = "\x1f"
"""Stands in N_b for a run of characters that are neither letters nor digits; sorts before both."""

MOST_APART: Final = 6
"""Capitals inside one token that are taken as optional word starts; tokens with more are noise."""

_RUNS: Final = re.compile(f"{SEP}+")

_IGNORABLE: Final = frozenset(
    code
    for first, last in (
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x0640, 0x0640),  # tatweel: an Arabic line filler
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE01EF),
    )
    for code in range(first, last + 1)
)
# Drawn like an apostrophe or an exclamation mark (UTS 39), or like a mark beside the word.
_SEPARATING: Final = frozenset(map(ord, "ʹʺʻʼʽʾʿˈˊˋˮꞌꞋǃ™℠"))
_ENCLOSED_A: Final = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)
_CACHE_LIMIT: Final = 1 << 16


def N(text: str) -> str:  # noqa: N802 - the name it has in the literature and in this project
    """Return the letters and digits of *text*, free of case, accents, width and look-alikes.

    Per code point: NFKD, case folding, NFKD; combining marks and default-ignorable characters
    vanish; letters that look Latin become Latin, digits of any script ASCII digits; categories L
    and N stay.

    Source:
        Unicode Standard Annex 15, Technical Standard 39. Ours: per code point instead of per
        text, enclosed letters and the larger look-alike table, tatweel, ``™`` as no letters.
    """
    return text.translate(_FOLD).replace(SEP, "")


def N_b(text: str) -> str:  # noqa: N802
    """Return `N` of *text* with every maximal run of other characters as one `SEP`.

    Marks and ignorable characters vanish without being separators. Nothing is added at the ends.
    """
    return _RUNS.sub(SEP, text.translate(_FOLD))


def word_starts(text: str, *, inside: bool = False) -> tuple[int, ...]:
    """Return the indices of the capitals that begin a word in the middle of one.

    A capital does so after a small letter or a digit, as in ``isParis``; not after another
    capital. What leaves nothing in N_b does not stand between.

    Args:
        text: The raw text.
        inside: Whether the character before it is a small letter or a digit; see `ends_inside`.
    """
    if text.lower() == text:
        return ()
    starts = []
    for index, char in enumerate(text):
        if inside and char.isupper():
            starts.append(index)
        if fold(char):
            inside = char.isalnum() and not char.isupper()
    return tuple(starts)


def ends_inside(text: str, *, inside: bool = False) -> bool:
    """Return whether a capital behind *text* would begin a word in the middle of one."""
    last = next((char for char in reversed(text) if fold(char)), None)
    return inside if last is None else last.isalnum() and not last.isupper()


def words_apart(text: str, *, inside: bool = False) -> Iterator[str]:
    """Yield *text* in N_b, once for every choice of the `word_starts` that get a `SEP`.

    The first is `N_b` itself. There are two to the power of the word starts: for tokens, not texts.
    """
    starts = word_starts(text, inside=inside)[:MOST_APART]
    for n_cuts in range(len(starts) + 1):
        for chosen in combinations(starts, n_cuts):
            parts = (text[start:end] for start, end in pairwise([0, *chosen, len(text)]))
            yield N_b(SEP.join(parts))


def fold(char: str) -> str:
    """Return what one character comes to: letters, `SEP`, several of them, or nothing."""
    return _FOLD[ord(char)]


def aligned(text: str, *, bounded: bool) -> tuple[str, list[int]]:
    """Return a normal form together with where it comes from.

    Args:
        text: The raw text.
        bounded: Whether to keep separators, as `N_b` does.

    Returns:
        The form, and for each of its symbols the index in *text* of the character that wrote it;
        for a `SEP` that of the first of its run.
    """
    symbols: list[str] = []
    offsets: list[int] = []
    for index, char in enumerate(text):
        for symbol in fold(char):
            if symbol == SEP and (not bounded or (symbols and symbols[-1] == SEP)):
                continue
            symbols.append(symbol)
            offsets.append(index)
    return "".join(symbols), offsets


class _Folding(dict[int, str]):
    """The per-code-point table for `str.translate`, filled as it is asked, up to a limit."""

    def __missing__(self, code: int) -> str:
        folded = _fold(code)
        if len(self) < _CACHE_LIMIT:
            self[code] = folded
        return folded


def _fold(code: int) -> str:
    if code in _IGNORABLE:
        return ""
    if code in _SEPARATING:
        return SEP
    for first in _ENCLOSED_A:
        if first <= code < first + 26:
            return chr(ord("a") + code - first)
    return _RUNS.sub(SEP, "".join(map(_symbol, _decomposed(chr(code)))))


def _decomposed(char: str) -> str:
    before, after = "", char
    while before != after:  # case folding may compose anew, decomposition may bring up a capital
        # U+0345 is a mark, and case-folds to a letter.
        unmarked = normalize("NFKD", after).replace("\u0345", "")
        before, after = after, normalize("NFKD", unmarked.casefold())
    return after


def _symbol(char: str) -> str:
    kind = category(char)
    if kind[0] == "M" or ord(char) in _IGNORABLE:
        return ""
    if char in CONFUSABLES:
        return CONFUSABLES[char]
    number = digit(char, None)
    if number is not None:
        return str(number)
    return char if kind[0] in "LN" and ord(char) not in _SEPARATING else SEP


_FOLD: Final = _Folding()
