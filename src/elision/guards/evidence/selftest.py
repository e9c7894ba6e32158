"""A target's phrases, re-spelled and held against the guard that is to find them."""

from __future__ import annotations

import base64
import codecs
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from elision.guards.evidence.impact import in_force
from elision.guards.guard import Guard

if TYPE_CHECKING:
    from elision.guards.targets import ForgetTarget

MAX_PHRASES = 256
"""Phrases tried per target; of a longer list as many, evenly spread."""

MAX_CHECKED = 32
"""Phrases of these whose encodings are tried."""

_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}


def _letters(separator: str) -> Callable[[str], str]:
    def respell(text: str) -> str:
        return separator.join(c for c in text if not c.isspace())

    return respell


SPELLINGS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "identity": lambda text: text,
        "upper": str.upper,
        "spaced": _letters(" "),
        "hyphen": _letters("-"),
        "dots": _letters("."),
        "zero_width": "\u200b".join,
        "full_width": lambda text: text.translate(_FULL_WIDTH),
    }
)
"""Families that no output may carry: the guard enforces them."""

ENCODINGS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "base64": lambda text: base64.b64encode(text.encode()).decode(),
        "rot13": lambda text: codecs.encode(text, "rot13"),
        "reversed": lambda text: text[::-1],
    }
)
"""Families that a check finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What came of it.

    Attributes:
        cases: Spellings tried, by family.
        leaked: Those that the guard did not find, by family.
        checked: Encodings tried, by family; a check finds them.
        missed: Those that it did not find.
        n_phrases: Phrases tried.
    """

    cases: Mapping[str, int]
    leaked: Mapping[str, int]
    checked: Mapping[str, int]
    missed: Mapping[str, int]
    n_phrases: int

    def to_body(self) -> dict[str, Any]:
        """Return the result as a receipt writes it: counts alone."""
        families = {
            name: {"cases": n, "leaked": self.leaked.get(name, 0)} for name, n in self.cases.items()
        }
        checked = {
            name: {"cases": n, "missed": self.missed.get(name, 0)}
            for name, n in self.checked.items()
        }
        return {
            "backend": "elision.guards.guard",
            "n_phrases": self.n_phrases,
            "cases": sum(self.cases.values()),
            "leaked": sum(self.leaked.values()),
            "by_family": families,
            "by_check": checked,
        }


def self_test(target: ForgetTarget) -> SelfTest:
    """Try every spelling of *target*'s hard phrases on the guard that enforces them.

    Soft phrases are left out: they are made unlikely, not impossible. So is everything of a
    target that only observes.
    """
    from elision.guards.detection.check import Checker

    target = in_force(target)
    guard, checker = Guard.compile([target]), Checker.compile([target])
    phrases = [] if target.action == "observe" else [*_chosen(target)]
    cases, leaked, checked, missed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for name, respell in SPELLINGS.items():
        cases[name] = len(phrases)
        leaked[name] = sum(not guard.hides(f"It was {respell(text)}.") for text in phrases)
    for name, encode in ENCODINGS.items():
        checked[name] = len(phrases[:MAX_CHECKED])
        missed[name] = sum(
            not checker.check_text(encode(text)).hits for text in phrases[:MAX_CHECKED]
        )
    return SelfTest(
        cases=cases, leaked=leaked, checked=checked, missed=missed, n_phrases=len(phrases)
    )


def _chosen(target: ForgetTarget) -> Iterator[str]:
    hard = [phrase.text for phrase in target.phrases if phrase.mode == "hard"]
    step = max(1, -(-len(hard) // MAX_PHRASES))
    yield from hard[::step]
