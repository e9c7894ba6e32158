"""From what must not be said to the patterns that find it, whatever the spelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal, NamedTuple, TypeAlias

from elision.errors import TargetError
from elision.guards.phrases.normal import SEP, N, N_b, fold
from elision.guards.targets import Action, ForgetTarget, Phrase

Form: TypeAlias = Literal["N", "N_b", "spelled"]

LONGEST_BOUNDED: Final = 8
"""Forms of up to this many letters match between word boundaries unless told otherwise."""
LEAST_HOT: Final = 6
"""A share of a phrase counts from this many letters on, or from the whole phrase if shorter."""
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One spelling family of a phrase.

    Attributes:
        text: What to look for: in N for form ``N``, else in N_b, beginning with `SEP` then.
        form: ``N``; ``N_b`` (between word boundaries); or ``spelled``, letter by letter.
        closed: Whether a word boundary must follow.
        owner: Index of the phrase in its `PatternSet`.
    """

    text: str = field(repr=False)  # what must not be said must not be logged either
    form: Form
    closed: bool
    owner: int = 0


class Owner(NamedTuple):
    """Whose a phrase is, without the phrase itself."""

    target_id: str
    phrase: int
    action: Action
    allow_echo: bool


def patterns(phrase: Phrase, *, owner: int = 0) -> tuple[Pattern, ...]:
    """Return what to look for so that no spelling of *phrase* gets by.

    Up to `LONGEST_BOUNDED` letters, a phrase matches between word boundaries, as written, with its
    words run together, and spelled out letter by letter; a longer one matches on N, where
    separators do not count. A capital inside a word begins a word as well (``isParis``).
    ``boundary`` overrides that, except in scripts that put no spaces
    between words: there N alone is meaningful.

    Raises:
        TargetError: If the phrase has no letter or digit, or its ``beta`` is not in (0, 1].
    """
    letters = N(phrase.text)
    if not letters:
        raise TargetError("a phrase needs at least one letter or digit", param="phrases")
    if not 0 < phrase.beta <= 1:
        raise TargetError(f"beta is {phrase.beta}, not in (0, 1]", param="phrases")
    hot = _n_hot(len(letters), phrase.beta)
    if not _is_bounded(phrase, letters):
        return (Pattern(text=letters[:hot], form="N", closed=False, owner=owner),)
    whole = hot == len(letters)
    joined, spelled = SEP + letters[:hot], SEP + SEP.join(letters[:hot])
    written = _first_letters(SEP + N_b(phrase.text).strip(SEP), hot)
    found = {
        joined: Pattern(text=joined, form="N_b", closed=whole, owner=owner),
        written: Pattern(text=written, form="N_b", closed=whole, owner=owner),
    }
    # A letter may come to two (ß, ﬁ, ½): spelled out, these stand side by side.
    singly = SEP + SEP.join(filter(None, (fold(c).strip(SEP) for c in phrase.text)))
    for text in (spelled, _first_letters(singly, hot)):
        found.setdefault(text, Pattern(text=text, form="spelled", closed=True, owner=owner))
    return tuple(found.values())


def _n_hot(n_letters: int, beta: float) -> int:
    # 0.7 x 10 is a little more than 7 in floating point
    return max(ceil(beta * n_letters - 1e-9), min(LEAST_HOT, n_letters))


def _is_bounded(phrase: Phrase, letters: str) -> bool:
    if any(first <= ord(c) <= last for c in letters for first, last in _UNSPACED):
        return False
    if phrase.boundary == "auto":
        return len(letters) <= LONGEST_BOUNDED
    return phrase.boundary == "yes"


def _first_letters(words: str, n_letters: int) -> str:
    """Return the shortest prefix of *words* with that many letters; separators do not count."""
    for end, char in enumerate(words, start=1):
        n_letters -= char != SEP
        if not n_letters:
            return words[:end]
    return words


def owned(targets: Iterable[ForgetTarget]) -> Iterator[tuple[Owner, Phrase]]:
    """Yield every phrase of *targets* with its owner."""
    for target in targets:
        for index, phrase in enumerate(target.phrases):
            yield Owner(target.id, index, target.action, phrase.allow_echo), phrase
