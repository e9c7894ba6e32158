"""Which variant may leave: a function of the scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from elision.agents.alu.config import AluConfig
from elision.agents.alu.roles import Score

_MOST_WORDS: Final = 600


@dataclass(frozen=True, slots=True)
class Variant:
    """A rewriting with its rating.

    Attributes:
        index: Its place among all of them.
        text: It.
        score: Of the critic, or of the rule that found a target in it.
    """

    index: int
    text: str = field(repr=False)
    score: Score


def best_of(variants: Sequence[Variant], draft: str, config: AluConfig) -> tuple[Variant, ...]:
    """Return the variants that count, best first; none if they are not good enough together.

    The best `AluConfig.keep` count: their mean rating must reach the threshold, and the worst of
    them the least. Equal ratings are told apart by utility, then by nearness to the draft, then
    by index.

    Source:
        Sanyal and Mandal 2025, arXiv:2502.00406 (top j of k, mean of at least 4). Ours: the least
        rating, and the order of equals.
    """
    kept = _ranked(variants, draft)[: config.keep]
    leaks = [one.score.leak for one in kept]
    if not kept or fmean(leaks) < config.threshold or min(leaks) < config.least:
        return ()
    return tuple(kept)


def _ranked(variants: Sequence[Variant], draft: str) -> list[Variant]:
    def place(one: Variant) -> tuple[int, int, int, int]:
        distance = word_distance(one.text, draft)
        return -one.score.leak, -one.score.utility, distance, one.index

    return sorted(variants, key=place)


def word_distance(one: str, other: str) -> int:
    """Return how many words must be put in, taken out or replaced to make *other* of *one*.

    Of long texts the first 600 words are compared.
    """
    a, b = one.split()[:_MOST_WORDS], other.split()[:_MOST_WORDS]
    row: list[int] = [*range(len(b) + 1)]
    for n, word in enumerate(a, start=1):
        before, row[0] = row[0], n
        for m, there in enumerate(b, start=1):
            fits = before + (word != there)
            before = row[m]
            row[m] = min(fits, before + 1, row[m - 1] + 1)
    return row[-1]
