"""Intervals: how far a number may be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from random import Random
from statistics import fmean
from typing import Final

from elision.errors import ConfigError

Z_95: Final = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % above it."""


def wilson(n_hits: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of the share ``n_hits / n``.

    It holds at the ends too: nought hits of 50 still allow a share of 7 %.

    Args:
        n_hits: Items that were hit.
        n: Items in all.
        z: Quantile of the normal distribution; the default gives 95 %.

    Raises:
        ConfigError: If there are no items, or more hits than items.

    Source:
        Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= n_hits <= n or n == 0:
        raise ConfigError(f"{n_hits} hits of {n} items have no interval")
    share, square = n_hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    low = 0.0 if n_hits == 0 else max(0.0, middle - half)
    return low, 1.0 if n_hits == n else min(1.0, middle + half)


def bootstrap(
    values: Sequence[float], *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of *values*.

    Args:
        values: One per item.
        n_resamples: Resamples drawn.
        level: Share of the resamples' means that lie within.
        seed: The same seed gives the same interval.

    Raises:
        ConfigError: If there are no values.

    Source:
        Efron 1979, Ann. Statist. 7, 1-26.
    """
    if not values:
        raise ConfigError("no values have no interval")
    draw, n = Random(seed), len(values)  # noqa: S311 -- statistics, not secrets
    means = sorted(fmean(draw.choices(values, k=n)) for _ in range(n_resamples))
    tail = (1 - level) / 2
    low, high = int(tail * n_resamples), int((1 - tail) * n_resamples) - 1
    return means[low], means[max(low, high)]
