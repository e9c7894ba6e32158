"""Shares of a count, with the interval in which the true share may lie."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

Z_95 = 1.959963984540054
"""The normal distribution's two-sided 95 % quantile."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many.

    Attributes:
        hits: How many.
        n: Of how many.
    """

    hits: int
    n: int

    @property
    def share(self) -> float:
        """The share itself, in [0, 1]; 0 of nothing."""
        return self.hits / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of the share at 95 %; all of [0, 1] for nothing.

        Source:
            Wilson 1927, JASA 22:209-212.
        """
        if not self.n:
            return 0.0, 1.0
        z2 = Z_95 * Z_95
        middle = self.share + z2 / (2 * self.n)
        half = Z_95 * sqrt(self.share * (1 - self.share) / self.n + z2 / (4 * self.n * self.n))
        below, above = middle - half, middle + half
        scale = 1 + z2 / self.n
        # At the ends the two terms are equal but for rounding.
        low = 0.0 if self.hits == 0 else below / scale
        return low, 1.0 if self.hits == self.n else above / scale

    def to_body(self) -> dict[str, Any]:
        """Return the rate as the wire writes it, rounded to six places."""
        low, high = self.interval
        ends = {"low": round(low, 6), "high": round(high, 6)}
        return {"hits": self.hits, "n": self.n, "share": round(self.share, 6), **ends}
