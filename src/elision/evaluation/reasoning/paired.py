"""Paired comparison: two methods on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from statistics import fmean

from elision.errors import ConfigError
from elision.evaluation.metrics import bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a method changes against another on the same items.

    Attributes:
        gain: Mean difference of the items' values.
        interval: Its 95 % interval, by bootstrap over items.
        n_won: Items whose value rose.
        n_lost: Items whose value fell.
        p: Two-sided exact probability of a split at least as uneven, if neither were better.
    """

    gain: float
    interval: tuple[float, float]
    n_won: int
    n_lost: int
    p: float

    @property
    def verdict(self) -> str:
        """What the interval carries: ``better``, ``worse``, or ``not told apart``."""
        low, high = self.interval
        if not low <= 0 <= high:
            return "better" if low > 0 else "worse"
        return "not told apart"


def compare(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Comparison:
    """Return what *ours* changes against *theirs*.

    Args:
        ours: A value per item; of sampled replies, the mean over the seeds.
        theirs: The other method's, on the same items at least.

    Raises:
        ConfigError: If an item is missing in *theirs*, or there are none.
    """
    if not ours or ours.keys() - theirs.keys():
        raise ConfigError("methods are compared on the same items")
    differences = [ours[index] - theirs[index] for index in sorted(ours)]
    n_won, n_lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return Comparison(
        gain=fmean(differences), interval=bootstrap(differences, n_resamples=2000),
        n_won=n_won, n_lost=n_lost, p=mcnemar(n_won, n_lost),
    )  # fmt: skip


def mcnemar(n_won: int, n_lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: a sign test over the discordant items.

    Source:
        McNemar 1947, Psychometrika 12, 153-157; the exact form is the binomial test at 1/2.
    """
    n, fewer = n_won + n_lost, min(n_won, n_lost)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))
