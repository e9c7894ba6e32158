"""Smuggling: characters that nobody sees carry the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from elision.testing.attacks.transform import Transform, plain

_BASE: Final = "\U0001f642"
_TAG: Final = 0xE0000


def _tags(text: str) -> str:
    return _BASE + "".join(chr(_TAG + ord(char)) if ord(char) < 0x80 else char for char in text)


def _wrapped_tags(text: str) -> str:
    return f"{_BASE}\U000e0001{_tags(text)[1:]}\U000e007f"


def _selectors(text: str) -> str:
    codes = (0xFE00 + b if b < 16 else 0xE0100 + b - 16 for b in text.encode())
    return _BASE + "".join(map(chr, codes))


def _selectors_by_code(text: str) -> str:
    return _BASE + "".join(chr(0xE0100 + min(ord(char), 0xEF)) for char in text)


def _sneaky_bits(text: str) -> str:
    bits = "".join(f"{number:08b}" for number in text.encode())
    return _BASE + bits.translate(str.maketrans("01", "\u2062\u2064"))


def _short_bits(text: str) -> str:
    """Return every character in as few bits as it has; where one ends, one can only guess."""
    bits = "".join("\u200b" if char == " " else f"{ord(char):b}" for char in text)
    return _BASE + bits.translate(str.maketrans("01", "\u2062\u2064"))


def _smuggled(name: str, write: Callable[[str], str], source: str, *, known: bool) -> Transform:
    return Transform(
        name=name,
        family="smuggling",
        write=plain(write),
        enforced="detection" if known else "unclaimed",
        source=source,
    )


SMUGGLING: Final = (
    _smuggled("tag characters", _tags, "garak", known=True),
    _smuggled("wrapped tag characters", _wrapped_tags, "garak", known=True),
    _smuggled("variation selectors", _selectors, "PyRIT", known=True),
    _smuggled("variation selectors by code point", _selectors_by_code, "garak", known=True),
    _smuggled("sneaky bits", _sneaky_bits, "PyRIT", known=True),
    _smuggled("short sneaky bits", _short_bits, "garak", known=False),
)
