"""Runs the decoders over a text, and over what they find, within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import Final, NamedTuple

from elision.guards.detection.canonical import L1
from elision.guards.detection.decoding import alphabets, concealment, encodings, escapes, smuggling
from elision.guards.detection.decoding.found import Decoded, Decoder
from elision.guards.phrases.advice import common_words

CERTAIN: Final[tuple[Decoder, ...]] = (
    escapes.percent_escapes,
    escapes.entities,
    escapes.backslashes,
    escapes.code_points,
    escapes.quoted_printable,
    escapes.mime_words,
    encodings.base64_text,
    encodings.base32_text,
    encodings.hex_text,
    encodings.base85_text,
    encodings.uuencoded,
    encodings.binary_text,
    encodings.code_numbers,
    smuggling.tags,
    smuggling.selectors,
    smuggling.sneaky_bits,
    smuggling.invisible,
    smuggling.swapped,
    alphabets.morse,
    alphabets.nato,
    alphabets.braille,
)
"""Decoders that find nothing unless somebody put it there."""

LOOSE: Final[tuple[Decoder, ...]] = (
    encodings.letter_numbers,
    alphabets.symbols,
    concealment.line_initials,
    concealment.line_ends,
    concealment.word_initials,
    concealment.bracketed,
    concealment.capitals,
    concealment.every_second,
    concealment.quoted,
    concealment.identities,
)
"""Decoders that find something in any text, only not a phrase, unless somebody put it there.

Rotations, atbash, reversals and Pig Latin are no decoders here: `elision.guards.detection.forms`
turns the phrases instead.
"""

DEPTH: Final = 2
LONGEST: Final = 1 << 18
"""Characters of a text that are looked at; what is behind them is not decoded."""
_PER_CHAR, _FREE = 4, 4096


class Decoding(NamedTuple):
    """What a text says by way of decoders.

    Attributes:
        texts: What was decoded, each with its span in the raw text; ``how`` names the decoders
            from the outermost on: ``base64>hex``.
        covered: Whether all of it is there; false if a bound was hit.
    """

    texts: tuple[Decoded, ...]
    covered: bool


def decode(
    text: str, *, depth: int = DEPTH, decoders: Sequence[Decoder] = (*CERTAIN, *LOOSE)
) -> Decoding:
    """Return everything that *text* spells in a code, and what that spells in one.

    What decoding brings out is bounded to a small multiple of the text, the work is linear in both.
    Only a text that cannot be an accident is decoded again, and none as its own source.

    Args:
        text: Any text.
        depth: Decoders in a row.
        decoders: Which to try.
    """
    whole = Decoded(text[:LONGEST], "", 0, min(len(text), LONGEST), marks=())
    found: list[Decoded] = []
    left = _PER_CHAR * len(whole.text) + _FREE
    sources, seen = [whole], {whole.text}
    for _ in range(depth):
        inner: list[Decoded] = []
        for source in sources:
            for item in _within(source, decoders):
                if item.text in seen:
                    continue
                left -= len(item.text)
                if left < 0:
                    return Decoding((*found, *inner), covered=False)
                seen.add(item.text)
                inner.append(item)
        found += inner
        sources = [item for item in inner if item.certain]
    return Decoding(tuple(found), covered=len(text) <= LONGEST)


def _within(source: Decoded, decoders: Sequence[Decoder]) -> Iterator[Decoded]:
    """Yield what *decoders* find in *source*, in terms of the raw text."""
    for decoder in decoders:
        for item in decoder(source.text):
            yield item if not source.how else _placed(item, source)


def _placed(item: Decoded, source: Decoded) -> Decoded:
    start, end = source.raw(item.start, item.end)
    last = len(source.text)
    marks = [source.marks[min(mark, last)] for mark in item.marks] if source.marks else ()
    return item._replace(how=f"{source.how}>{item.how}", start=start, end=end, marks=marks)


# --- plain readings ------------------------------------------------------------------------------

PLAIN: Final = 0.6
"""Share of dictionary words from which a reading counts as plain (guard.md 1.6.4)."""
_STILL, _GAINED = 0.35, 0.25
"""What a reading full of names must reach, and gain over the text."""
_SEGMENTS, _LONGEST_SEGMENT, _SHORTEST_SEGMENT = 32, 2_000, 8
_SENTENCES: Final = re.compile(r"[^\r\n:]+")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_APART: Final = re.compile(r"(?<!\w)\w([^\w]|_)\w(?:\1.){2,}(?!\w)", re.DOTALL)
_UNLEET: Final = tuple(str.maketrans("4305$7@8" + "1!", "aeosstab" + to * 2) for to in "il")
_LETTERS: Final = ascii_lowercase + ascii_lowercase.upper()


def readings(text: str) -> Iterator[str]:
    """Yield the plain readings of an obfuscated text: what it, or a line of it, may mean in words.

    Tried are the skeleton (`L1`), letters set apart, digits for letters, reversal of the whole and
    of each word, the rotations, atbash, and every decoder that does not yield text by accident.
    Kept is what consists of dictionary words by three fifths; or, names being no dictionary words,
    by a third and by much more than the text. A plain text has no reading but itself, which is not
    yielded. Bounded: 32 lines, 2,000 characters of each; nothing is yielded twice.

    Source:
        guard.md 1.6.4. Ours: line by line, all rotations, the second threshold.
    """
    seen = {text}
    for reading in _readings(text):
        if reading not in seen:
            seen.add(reading)
            yield reading


def _readings(text: str) -> Iterator[str]:
    for item in decode(text, decoders=CERTAIN).texts:
        if plainness(item.text) >= PLAIN:
            yield item.text
    for segment in _segments(text):
        share = plainness(segment)
        for reading in _turned(segment):
            if plainness(reading) >= PLAIN > share:
                yield reading
        for reading in _respelled(segment):
            if _is_plainer(plainness(reading), share):
                yield reading


def _is_plainer(share: float, before: float) -> bool:
    return share > before and (share >= PLAIN or (share >= _STILL and share >= before + _GAINED))


def _segments(text: str) -> Iterator[str]:
    """Yield the text if it is short, and its lines or what colons divide, the least plain first."""
    if len(text) <= _LONGEST_SEGMENT:
        yield text
    parts = (match[0].strip() for match in _SENTENCES.finditer(text))
    odd = {p: plainness(p) for p in parts if len(p) >= _SHORTEST_SEGMENT and p != text}
    for part in sorted(odd, key=odd.__getitem__)[:_SEGMENTS]:
        if odd[part] < PLAIN:
            yield part[:_LONGEST_SEGMENT]


def _respelled(text: str) -> Iterator[str]:
    """Yield *text* with its letters drawn, spaced or ordered otherwise."""
    yield L1(text)
    joined = _APART.sub(lambda match: match[0][::2], text)
    yield joined
    for table in _UNLEET:
        yield joined.translate(table)
    yield text[::-1]
    yield re.sub(r"\S+", lambda match: match[0][::-1], text)


def _turned(text: str) -> Iterator[str]:
    """Yield the rotations of *text*, the commonest first, and its atbash."""
    if not text.isascii() or _WORD.search(text) is None:
        return
    for steps in (13, *range(1, 13), *range(14, 26)):
        turned = ascii_lowercase[steps:] + ascii_lowercase[:steps]
        yield text.translate(str.maketrans(_LETTERS, turned + turned.upper()))
    turned = ascii_lowercase[::-1]
    yield text.translate(str.maketrans(_LETTERS, turned + turned.upper()))


def plainness(text: str) -> float:
    """Return the share of *text*'s words that are among the 2,000 commonest English ones.

    Words of one letter do not count; a text without words has 0.
    """
    words = _WORD.findall(text[:_LONGEST_SEGMENT].lower())
    return sum(word in common_words() for word in words) / len(words) if words else 0.0
