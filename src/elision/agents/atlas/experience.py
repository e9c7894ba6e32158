"""What a process remembers of its last episodes besides memory: figures only."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Final

from elision.agents.atlas.drift import DriftMonitor
from elision.agents.atlas.lanes import LANES, Lane
from elision.agents.atlas.quota import DAILY_TOKENS, DailyQuota
from elision.memory.records import Scope

WINDOW: Final = 200
"""Episodes of a scope whose figures are kept."""
_MOST_SCOPES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Figures:
    """One episode's.

    Attributes:
        lane: It began in.
        tokens: Over all roles.
        cost: Over all roles.
    """

    lane: str
    tokens: int
    cost: float


@dataclass(slots=True)
class _Window:
    last: deque[Figures] = field(default_factory=lambda: deque(maxlen=WINDOW))
    n: int = 0


class Experience:
    """Figures of the last episodes, scope by scope; lives as long as its process.

    One may serve any number of agents: hand the same one to each where an agent lives for one
    request only. Thread-safe.

    Args:
        daily_tokens: Most tokens that a scope may spend on distilling in a day.

    Attributes:
        quota: What distilling may still spend.
        drift: Watches the rewards.
        counts: How often what happened when something was to be learned: codes only.
    """

    def __init__(self, daily_tokens: int = DAILY_TOKENS) -> None:
        self.quota = DailyQuota(daily_tokens)
        self.drift = DriftMonitor()
        self.counts: Counter[str] = Counter()
        self._windows: OrderedDict[Scope, _Window] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, scope: Scope) -> bool:
        """Return whether it was told of any episode of *scope*, or that there are none."""
        with self._lock:
            return scope in self._windows

    def prime(self, scope: Scope, episodes: Iterable[Figures]) -> None:
        """Take in what went before, oldest first, unless *scope* is known already."""
        told = tuple(episodes)
        with self._lock:
            if scope not in self._windows:
                self._of(scope).last.extend(told)
                self._of(scope).n = len(told)

    def note(self, scope: Scope, figures: Figures) -> int:
        """Take in an episode that ended; return its number in the scope, from 1."""
        with self._lock:
            window = self._of(scope)
            window.last.append(figures)
            window.n += 1
            return window.n

    def median_tokens(self, scope: Scope) -> float | None:
        """Return the median of the last episodes' tokens; None without any."""
        tokens = [one.tokens for one in self._last(scope)]
        return median(tokens) if tokens else None

    def costs(self, scope: Scope) -> Mapping[Lane, float]:
        """Return the mean cost of the last episodes of each lane that had any."""
        last = self._last(scope)
        by_lane = {lane: [one.cost for one in last if one.lane == lane] for lane in LANES}
        return {lane: fmean(costs) for lane, costs in by_lane.items() if costs}

    def _last(self, scope: Scope) -> tuple[Figures, ...]:
        with self._lock:
            return tuple(self._windows[scope].last) if scope in self._windows else ()

    def _of(self, scope: Scope) -> _Window:
        window = self._windows.setdefault(scope, _Window())
        self._windows.move_to_end(scope)
        while len(self._windows) > _MOST_SCOPES:
            self._windows.popitem(last=False)
        return window
