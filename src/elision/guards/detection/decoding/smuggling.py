"""Text in characters that nothing shows: tags, variation selectors, invisible operators."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from elision.guards.detection.decoding.found import Decoded, legible, replaced

_TAGS: Final = re.compile("[\U000e0020-\U000e007e]+")
_SELECTORS: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_BITS: Final = re.compile("[\u2062\u2064]+(?:[\u200b\u2063 ]*[\u2062\u2064]+)*")
_FIRST_HIGH: Final = 0xE0100
# Two neighbours stored the wrong way round and drawn right.
_SWAPPED: Final = re.compile(
    "\u202d\u2066\u202e\u2066(.)\u2069\u2066(.)\u2069\u202c\u2069\u202c", re.DOTALL
)


def tags(text: str) -> Iterator[Decoded]:
    """Yield what the tag characters say, all of them together."""
    yield from _joined("tags", [*_TAGS.finditer(text)], lambda run: _shifted(run, 0xE0000))


def selectors(text: str) -> Iterator[Decoded]:
    """Yield what the variation selectors say, by either mapping in use.

    One writes byte *b* as U+FE00 + *b* below 16 and as U+E0100 + *b* − 16 from there on; the other
    writes the code point *c* as U+E0100 + *c*.
    """
    runs = [*_SELECTORS.finditer(text)]
    yield from _joined("selectors", runs, _bytes)
    yield from _joined("selectors", runs, lambda run: _shifted(run, _FIRST_HIGH))


def _joined(how: str, runs: list[re.Match[str]], read: Callable[[str], str]) -> Iterator[Decoded]:
    said = read("".join(run[0] for run in runs))
    if said:
        yield Decoded(said, how, runs[0].start(), runs[-1].end())


def _shifted(run: str, first: int) -> str:
    codes = (ord(char) - first for char in run)
    return legible(bytes(code for code in codes if 32 <= code < 127))


def _bytes(run: str) -> str:
    codes = (
        (code - 0xFE00) if code < 0xFE10 else code - _FIRST_HIGH + 16 for code in map(ord, run)
    )
    return legible(bytes(codes))


def sneaky_bits(text: str) -> Iterator[Decoded]:
    """Yield what invisible ones (U+2064) and zeros (U+2062) say.

    Either eight bits a byte; or, in words set apart by zero-width spaces, as many bits as each
    character needs: seven for a letter, six for a digit or a hyphen.
    """
    for match in _BITS.finditer(text):
        code = match[0].translate({0x2062: "0", 0x2064: "1"})
        bits = re.sub("[^01]", "", code)
        octets = (bits[at : at + 8] for at in range(0, len(bits) - 7, 8))
        shortest = " ".join(map(_shortest, re.split("[^01]+", code)))
        for said in (legible(bytes(int(octet, 2) for octet in octets)), shortest.strip()):
            if said:
                yield Decoded(said, "sneaky bits", *match.span())


def _shortest(bits: str) -> str:
    """Return the letters that *bits* write with no leading zeros; what is none is left out."""
    said, at = "", 0
    while at < len(bits):
        letter, mark = chr(int(bits[at : at + 7], 2)), chr(int(bits[at : at + 6], 2))
        if letter.isalpha():
            said, at = said + letter, at + 7
        else:
            said, at = said + mark, at + 6
    return said if all(32 <= ord(char) < 127 for char in said) else ""


def invisible(text: str) -> Iterator[Decoded]:
    """Yield what two kinds of zero-width characters say as bits, eight a byte."""
    for match in re.finditer("[\u200b\u200c\u200d\u2060]{16,}", text):
        for zero, one in pairwise("\u200b\u200c\u200d\u2060"):
            if {*match[0]} <= {zero, one}:
                bits = match[0].translate({ord(zero): "0", ord(one): "1"})
                octets = (int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
                said = legible(bytes(octets))
                if said:
                    yield Decoded(said, "zero-width bits", *match.span())


def swapped(text: str) -> Iterator[Decoded]:
    """Yield *text* as it is drawn where direction marks swap neighbours.

    Source:
        Boucher et al. 2022, arXiv:2106.09898 (bad characters).
    """
    yield from replaced("bidi", text, _SWAPPED, lambda pair: pair[7] + pair[4])
