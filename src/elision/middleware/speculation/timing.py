"""Timing forwards of several sizes within a budget."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from elision.middleware.speculation.drift import percentile_90

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 81)
"""Sizes worth timing: where kernels change their tiles, up to the tree of the paper."""
MOST_TELLING = (1, 8, 32, 16, 4, 2, 64, 12, 24, 6, 48, 3, 81)
"""The same sizes, those first without which the others say little."""
FEWEST_POINTS = 4
N_TIMINGS = 5
MOST_TIMINGS = 9
DEAR = 1.5
"""A size of the grid costs about so many times one row; used to plan the measuring only."""
SPREAD = 1.1
"""90th percentile over median of one forward's time where nothing was measured."""

Cell: TypeAlias = tuple[int, int]
"""Rows and cached tokens of one forward."""


class Timer(Protocol):
    """Times forwards of the model that the curve is for."""

    def __call__(self, n: int, n_context: int, /) -> float:
        """Return the seconds of one forward over *n* rows behind *n_context* cached tokens.

        Called in any order; must leave the cache as it found it. What it takes to fill the cache
        is not part of the answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timings:
    """What was timed, for `CostCurve`.

    Attributes:
        grid: Row counts, rising from 1.
        near_s: Median seconds of each behind *n_context* cached tokens.
        slope_s: Seconds that each further token of context adds to each.
        n_context: The shorter context.
        spread: 90th percentile over median of one forward's time.
    """

    grid: tuple[int, ...]
    near_s: tuple[float, ...]
    slope_s: tuple[float, ...]
    n_context: int
    spread: float


def time_forwards(
    timer: Timer,
    *,
    budget_s: float,
    contexts: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Time forwards of the sizes that *budget_s* has room for.

    All sizes in turn, in another order every time, so that a busy moment meets no size alone; once
    to warm up, then at least `N_TIMINGS` times if the budget lasts, and the median counts. A slow
    model gets fewer sizes. Only the warming up of the fewest sizes may exceed the budget.

    Args:
        timer: Times one forward.
        budget_s: Seconds to spend.
        contexts: Shorter and longer context. Behind the longer one only the smallest and the
            largest size are timed: a row's attention costs in proportion to the context.
        clock: Seconds that pass.
    """
    end, (short, long) = clock() + budget_s, contexts
    timer(1, short)
    grid = _affordable(budget_s / (DEAR * (N_TIMINGS + 1) * max(timer(1, short), 1e-6)))
    cells = [(n, short) for n in grid]
    if len(grid) > FEWEST_POINTS:
        cells += [(n, long) for n in (grid[0], grid[-1])]
    took = _in_turns(timer, cells, lambda: clock() < end)
    median = {cell: statistics.median(seconds) for cell, seconds in took.items()}
    near, slopes = tuple(median[n, short] for n in grid), _slopes(grid, median, contexts)
    return Timings(grid, near, slopes, short, _spread(took, median))


def _affordable(n_points: float) -> tuple[int, ...]:
    """Return the sizes to time when about *n_points* can be paid for."""
    n = max(FEWEST_POINTS, min(len(GRID), int(n_points)))
    return tuple(sorted(MOST_TELLING[:n]))


def _in_turns(
    timer: Timer, cells: Sequence[Cell], has_time: Callable[[], bool]
) -> dict[Cell, list[float]]:
    """Time every cell once per turn while there is time; the first turn warms up."""
    shuffle = random.Random(0).shuffle  # noqa: S311 -- an order, not a secret
    took, order = {cell: [timer(*cell)] for cell in cells}, list(cells)
    for turn in range(MOST_TIMINGS):
        shuffle(order)
        for cell in order:
            if not has_time():
                return took
            took[cell] = [*(took[cell] if turn else ()), timer(*cell)]
    return took


def _slopes(
    grid: tuple[int, ...], median: Mapping[Cell, float], contexts: tuple[int, int]
) -> tuple[float, ...]:
    """Return seconds per token of context for every size: linear in n, never negative."""
    short, long = contexts
    if (1, long) not in median:
        return (0.0,) * len(grid)
    ends = [max(0.0, median[n, long] - median[n, short]) for n in (grid[0], grid[-1])]
    added = np.interp(grid, [grid[0], grid[-1]], ends)
    return tuple(float(seconds) / (long - short) for seconds in added)


def _spread(took: Mapping[Cell, Sequence[float]], median: Mapping[Cell, float]) -> float:
    ratios = [s / median[cell] for cell, seconds in took.items() for s in seconds]
    if len(ratios) < 3 * len(took):
        return SPREAD
    return min(1.5, max(1.02, percentile_90(ratios)))
