"""What the running engine teaches about the cost of its forwards."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

N_DRIFT = 9
"""The drift is the median over so many forwards."""
N_SPREAD = 32
"""The spread is taken over so many forwards."""
FASTEST = 4
SLOWEST = 16
"""A correction moves by a fourth of a miss at first, by a sixteenth later."""


class Online:
    """What the running engine has taught: drift, spread, and what sizes cost against each other.

    All in logarithms, of what a forward took over what the measured curve says.
    """

    def __init__(self, n_buckets: int, spread: float) -> None:
        self._n_buckets = n_buckets
        self._learned: dict[int, NDArray[np.float64]] = {}
        self._counts: dict[int, NDArray[np.int64]] = {}
        self._factors: dict[int, NDArray[np.float64]] = {}
        self._levels: deque[float] = deque(maxlen=N_DRIFT)
        self._misses: deque[float] = deque([math.log(spread)] * (N_SPREAD // 4), maxlen=N_SPREAD)
        self._last: tuple[int, int, float] | None = None
        self.drift = 0.0
        self.spread = spread

    def factors(self, n_sequences: int) -> NDArray[np.float64]:
        """Return what to multiply every bucket's measured time by."""
        known = self._factors.get(n_sequences)
        if known is None:
            known = self._factors[n_sequences] = np.exp(self._logs(n_sequences) + self.drift)
        return known

    def observe(self, n_sequences: int, bucket: int, ratio: float) -> None:
        """Take in the log-ratio of one forward."""
        foretold = math.log(self.factors(n_sequences)[bucket])
        self._misses.append(ratio - foretold)
        self._contrast((n_sequences, bucket, ratio))
        self._levels.append(ratio - float(self._logs(n_sequences)[bucket]))
        self.drift = statistics.median(self._levels)
        self.spread = math.exp(max(0.0, percentile_90(self._misses)))
        self._factors.clear()

    def _logs(self, n_sequences: int) -> NDArray[np.float64]:
        """Return every bucket's correction; one never seen goes by the mean of those seen."""
        seen = self._count(n_sequences) > 0
        learned = self._learned[n_sequences]
        return np.where(seen, learned, learned[seen].mean()) if seen.any() else learned

    def _count(self, n_sequences: int) -> NDArray[np.int64]:
        if n_sequences not in self._counts:
            self._counts[n_sequences] = np.zeros(self._n_buckets, dtype=np.int64)
            self._learned[n_sequences] = np.zeros(self._n_buckets)
        return self._counts[n_sequences]

    def _contrast(self, now: tuple[int, int, float]) -> None:
        """Learn from two forwards in a row what their sizes cost against each other."""
        before, self._last = self._last, now
        if before is None or before[:2] == now[:2]:
            return
        expected = self._logs(now[0])[now[1]] - self._logs(before[0])[before[1]]
        miss = min(math.log(2), max(-math.log(2), now[2] - before[2] - float(expected)))
        self._move(now, miss / 2)
        self._move(before, -miss / 2)

    def _move(self, seen: tuple[int, int, float], by: float) -> None:
        n_sequences, bucket, _ = seen
        count, start = self._count(n_sequences), self._logs(n_sequences)[bucket]
        rate = 1 / min(16, 4 + int(count[bucket]))
        self._learned[n_sequences][bucket] = start + rate * by
        count[bucket] += 1


def percentile_90(values: Iterable[float]) -> float:
    """Return the smallest of *values* that at least nine in ten do not exceed."""
    rising = sorted(values)
    return rising[math.ceil(0.9 * len(rising)) - 1]
