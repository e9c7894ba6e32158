"""Laws 4 and 8: what must not be said, in any channel; and what is not spoken of at all.

The checkers name phrases and secrets by their number, never by their text: a failing test's log
is a channel too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias
from unicodedata import category, normalize

from elision.guards.normal import N, N_b
from elision.testing.laws.channels import Said, heard

_SHORT = 8
"""Letters up to which a phrase counts only as a word of its own, or spelled out."""

_Reading: TypeAlias = Callable[[str], "tuple[str, ...]"]


def check_never_leaks(said: Said, phrases: Sequence[str], *, before: str = "") -> None:
    """Check that no banned phrase left in any channel, in any spelling of its normal form.

    Channels are each choice's text, its tokens' log-probabilities (the written tokens joined, and
    every alternative read in its place), the report, errors with their causes, log records, and
    any other text. A phrase of more than 8 letters counts wherever its letters follow each other;
    a shorter one between word boundaries, or spelled out letter by letter. Text is read twice, by
    the guard's normal form and by a plainer one of our own, so that a guard which misreads is not
    believed.

    Args:
        said: What left.
        phrases: What must not leave.
        before: The assistant's beginning that the replies continue; a phrase that is begun there
            and ended in a reply leaks.

    Raises:
        AssertionError: With the phrase's number and the channel; never with text.
    """
    for channel, text, known in heard(said, before=before):
        for number, phrase in enumerate(phrases):
            for words in (_plain_words, _guard_words):
                leaked = _count(phrase, known + text, words) > _count(phrase, known, words)
                assert not leaked, f"phrase {number} leaves by {channel}"


def check_speaks_of_nothing(spoken: Said, secrets: Sequence[str]) -> None:
    """Check that log records, exceptions, metrics and traces carry none of *secrets*.

    Args:
        spoken: Records, exceptions (their causes and notes are read too), metrics text, mappings,
            or any collection of these.
        secrets: Prompts, answers, names, phrases. Text of fewer than 3 letters is searched as it
            is written, longer text also in normal form.

    Raises:
        AssertionError: With the secret's number and the channel; never with text.
    """
    for channel, text, _ in heard(spoken):
        for number, secret in enumerate(secrets):
            letters = N(secret)
            spilt = secret in text or (len(letters) > 2 and letters in N(text))
            assert not spilt, f"secret {number} is spoken of in {channel}"


def _count(phrase: str, text: str, words: _Reading) -> int:
    """Return how often *phrase* is found in *text*, by the rule of its length."""
    own, said = words(phrase), words(text)
    letters = "".join(own)
    if len(letters) > _SHORT:
        return "".join(said).count(letters)
    return sum(_runs(said, form) for form in {own, tuple(letters)})


def _runs(words: tuple[str, ...], form: tuple[str, ...]) -> int:
    ends = range(len(form), len(words) + 1)
    return sum(words[end - len(form) : end] == form for end in ends)


@lru_cache(maxsize=4096)
def _plain_words(text: str) -> tuple[str, ...]:
    """Return runs of letters and digits; case, width, accents and invisible characters aside."""
    flat = normalize("NFKD", normalize("NFKD", text).casefold())
    seen = (c for c in flat if category(c)[0] != "M" and category(c) != "Cf")
    return tuple("".join(c if category(c)[0] in "LN" else " " for c in seen).split())


@lru_cache(maxsize=4096)
def _guard_words(text: str) -> tuple[str, ...]:
    """Return the words that the guard reads in N_b."""
    return tuple("".join(c if N(c) else " " for c in N_b(text)).split())
