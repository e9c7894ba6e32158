"""Timing several ways to do a thing, in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

N_TURNS: Final = 7
BUDGET_S: Final = 0.1
"""Time after which no further turn is begun; three are taken at least."""


def fastest_s(runs: Sequence[Callable[[], None]]) -> list[float]:
    """Return the shortest time of each, taken in turns: what else runs hits all alike."""
    took, end = [math.inf] * len(runs), time.perf_counter() + BUDGET_S
    for turn in range(N_TURNS):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            took[index] = min(took[index], time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() > end:
            break
    return took
