"""Laws 4 and 8: what must not be said, in any channel; and what is not spoken of at all.

The checkers name phrases and secrets by their number, never by their text: a failing test's log
is a channel too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias
from unicodedata import category, normalize

from elision.guards.phrases.normal import SEP, N, N_b
from elision.testing.laws.channels import Said, heard

_SHORT = 8
"""Letters up to which a phrase counts only as a word of its own, or spelled out."""

_Reading: TypeAlias = Callable[[str], str]
"""Turns a text into its words, runs of letters and digits, each between two bars."""


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
            for read in (_plainly, _as_guard):
                leaked = _count(phrase, known + text, read) > _count(phrase, known, read)
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


def _count(phrase: str, text: str, read: _Reading) -> int:
    """Return how often *phrase* is found in *text*, by the rule of its length."""
    if not text:
        return 0
    own, said = read(phrase), read(text)
    letters = own.replace("|", "")
    if len(letters) > _SHORT:
        return said.replace("|", "").count(letters)
    return sum(said.count(form) for form in {own, "".join(f"|{c}|" for c in letters)})


@lru_cache(maxsize=4096)
def _plainly(text: str) -> str:
    """Return the words of *text*; case, width, accents and invisible characters aside."""
    return "".join(f"|{word}|" for word in text.translate(_PLAIN).split())


@lru_cache(maxsize=4096)
def _as_guard(text: str) -> str:
    """Return the words of *text* as the guard reads them in N_b."""
    return "".join(f"|{word}|" for word in N_b(text).split(SEP) if word)


class _Plain(dict[int, str]):
    """What one code point comes to in the plainer reading, filled as it is asked."""

    def __missing__(self, code: int) -> str:
        flat = normalize("NFKD", normalize("NFKD", chr(code)).casefold())
        seen = [c for c in flat if category(c)[0] != "M" and category(c) != "Cf"]
        self[code] = "".join(c if category(c)[0] in "LN" else " " for c in seen)
        return self[code]


_PLAIN = _Plain()
