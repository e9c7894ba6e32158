"""Ways to spell a text that a reader, and an attacker, takes for the same."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

Spelling: TypeAlias = Callable[[str], str]


def joined_by(separator: str) -> Spelling:
    """Return the spelling that puts *separator* between all characters of each word."""
    return lambda text: " ".join(separator.join(word) for word in text.split(" "))


def spaced(text: str) -> str:
    """Return *text* with a space between all characters."""
    return " ".join(text)


def full_width(text: str) -> str:
    """Return *text* with ASCII's visible characters in their full-width form."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def in_base64(text: str) -> str:
    """Return the base64 of *text*'s UTF-8."""
    return base64.b64encode(text.encode()).decode()


SPELLINGS: Mapping[str, Spelling] = MappingProxyType(
    {
        "spaces": spaced,
        "dots": joined_by("."),
        "hyphens": joined_by("-"),
        "zero-width": joined_by("\u200b"),
        "full-width": full_width,
        "upper case": str.upper,
        "lower case": str.lower,
        "accents": joined_by("\u0301"),
        "reversed": lambda text: text[::-1],
        "base64": in_base64,
    }
)
"""By the word that demands them. The last two are not of the same normal form: a mask on phrases
cannot see them, which a test of a semantic guard may want."""

_DEMAND = re.compile("|".join(re.escape(name) for name in SPELLINGS), re.IGNORECASE)


def demanded(text: str) -> Spelling:
    """Return the spelling whose name occurs last in *text*; without one, text as it is."""
    named = _DEMAND.findall(text)
    return SPELLINGS[named[-1].lower()] if named else str
