"""Drift alarms: a score or an uncertainty that is far from the last ones of its kind.

Robust where it can be: a z-score and a MAD-z-score. An alarm changes one thing only: what was
learned from that episode is quarantined.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean, median, pstdev
from typing import Final, Literal, TypeAlias

from elision.errors import ConfigError
from elision.memory.records import Scope

MAD_SCALE: Final = 1.4826
"""What makes the median absolute deviation of normal values their standard deviation."""
Quantity: TypeAlias = Literal["score", "uncertainty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """When an alarm is raised.

    Attributes:
        window: Last values that make the baseline.
        threshold: Deviation in standard deviations from which on it is an alarm.
        n_least: Values below which nothing is an alarm. The SDK has 5: after five easy successes
            the first failure, where there is most to learn, was an alarm.
        resolution: Least standard deviation believed: a judge that gave 1.0 five times over is not
            certain to the last digit.

    Raises:
        ConfigError: If a number is out of range.
    """

    window: int = 50
    threshold: float = 3.0
    n_least: int = 20
    resolution: float = 0.05

    def __post_init__(self) -> None:
        if not 2 <= self.n_least <= self.window:
            raise ConfigError(f"a baseline of {self.n_least} to {self.window} values tells nothing")
        if not (self.threshold > 0 and self.resolution > 0):
            raise ConfigError("threshold and resolution must be positive")


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a value is from its baseline, in standard deviations.

    Attributes:
        z: By mean and standard deviation.
        mad_z: By median and median absolute deviation; None if more than half of the baseline is
            the very same value: then every other value would be infinitely far.
        n: Values of the baseline.
    """

    z: float
    mad_z: float | None
    n: int

    @property
    def largest(self) -> float:
        """The larger of both, without its sign."""
        return max(abs(self.z), abs(self.mad_z or 0.0))


@dataclass(frozen=True, slots=True)
class Alarm:
    """A value that is too far from the others.

    Attributes:
        what: Which value.
        deviation: How far.
    """

    what: Quantity
    deviation: Deviation


def deviation(
    value: float, baseline: Sequence[float], policy: DriftPolicy = DriftPolicy()
) -> Deviation | None:
    r"""Return how far *value* is from the last values, or None if these are too few.

    Computes :math:`(x - \bar b) / s` and :math:`(x - \tilde b) / (1.4826\,\mathrm{MAD})`.

    Raises:
        ConfigError: If the value is not finite.

    Source:
        Arc-Computer/atlas-sdk, drift.py (window 50, threshold 3); Iglewicz and Hoaglin
        1993 for the MAD. Ours: a least standard deviation, and no MAD-z where the MAD is 0: rewards
        of 0 and 1 would raise an alarm at each failure.
    """
    if not isfinite(value):
        raise ConfigError(f"{value} cannot drift; it is not finite")
    kept = baseline[-policy.window :]
    if len(kept) < policy.n_least:
        return None
    z = (value - fmean(kept)) / max(pstdev(kept), policy.resolution)
    middle = median(kept)
    mad = MAD_SCALE * median(abs(b - middle) for b in kept)
    mad_z = (value - middle) / max(mad, policy.resolution) if mad > 0 else None
    return Deviation(z, mad_z, len(kept))


@dataclass(slots=True)
class _Series:
    score: deque[float]
    uncertainty: deque[float] = field(default_factory=deque)


class DriftMonitor:
    """Keeps the last scores and uncertainties of each scope and judge; lives with its process.

    Thread-safe. After a restart it starts from what `prime` is given, or from nothing. In a scope
    that hardly ever fails each failure is an alarm: it costs a look at what was learned from it.

    Args:
        policy: See `DriftPolicy`.
        most: Pairs of scope and judge that are kept; the one longest unused is dropped.
    """

    def __init__(self, policy: DriftPolicy = DriftPolicy(), *, most: int = 1_000) -> None:
        self.policy = policy
        self._most = most
        self._series: OrderedDict[tuple[Scope, str], _Series] = OrderedDict()
        self._lock = threading.Lock()

    def observe(
        self, scope: Scope, judge: str, *, score: float, uncertainty: float | None = None
    ) -> tuple[Alarm, ...]:
        """Take in a reward and return the alarms that it raises against those before it.

        Args:
            scope: Where the episode lies.
            judge: The judge's model, or the reward's source.
            score: The reward.
            uncertainty: As the judges told it; None if nobody did.
        """
        with self._lock:
            series = self._of(scope, judge)
            alarms = tuple(
                Alarm(what, found)
                for what, value, kept in _told(series, score, uncertainty)
                if (found := deviation(value, [*kept], self.policy)) is not None
                and found.largest >= self.policy.threshold
            )
            for _, value, kept in _told(series, score, uncertainty):
                kept.append(value)
        return alarms

    def prime(self, scope: Scope, judge: str, scores: Iterable[float]) -> None:
        """Take in older scores, oldest first, without raising alarms."""
        with self._lock:
            self._of(scope, judge).score.extend(scores)

    def _of(self, scope: Scope, judge: str) -> _Series:
        key = (scope, judge)
        if key not in self._series:
            n = self.policy.window
            self._series[key] = _Series(deque(maxlen=n), deque(maxlen=n))
        self._series.move_to_end(key)
        while len(self._series) > self._most:
            self._series.popitem(last=False)
        return self._series[key]


def _told(
    series: _Series, score: float, uncertainty: float | None
) -> list[tuple[Quantity, float, deque[float]]]:
    told: list[tuple[Quantity, float, deque[float]]] = [("score", score, series.score)]
    if uncertainty is not None:
        told.append(("uncertainty", uncertainty, series.uncertainty))
    return told
