"""What one forward costs: measured on the machine that will run it, corrected while it runs.

The cost of a forward over n rows is not monotone in n, let alone linear: kernels come in tiles, and
on a CPU twelve rows may cost more than sixteen. So a few sizes are timed and nothing is assumed of
the others but that they cost no more than the dearer of their two neighbours.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from elision.errors import ConfigError
from elision.middleware.speculation.drift import Online
from elision.middleware.speculation.timing import SPREAD, Timer, time_forwards

_FAR = 256


class CostCurve:
    r"""What a forward over n rows costs, behind a context, for one or several sequences.

    .. math:: t(n, L, B) = \bigl(t_0(n) + s(n) L + s(1) L (B - 1)\bigr) \cdot c_{B,n} \cdot D

    :math:`t_0 + s L` is measured. Between two sizes of the grid the dearer one counts; beyond the
    last, its cost per row. A further sequence reads keys of its own, as one row does. :math:`D`,
    the drift, is the median of what the last forwards took over what was foretold: machines get
    busy. :math:`c`, learned slowly, is what a size costs against the others; it is learned only
    from two forwards in a row of different sizes, which met the same machine, so that drift never
    passes for it.

    Lives as long as its engine; used by one thread.

    Args:
        grid: Row counts that were timed, rising from 1.
        near_s: Seconds of each behind *n_context* tokens.
        slope_s: Seconds that each further token of context adds; zero where not measured.
        n_context: The shorter of the contexts that were timed; no context counts as less.
        spread: 90th percentile of a forward's time over its median.

    Raises:
        ConfigError: If the grid does not rise from 1, or a time is not positive.
    """

    def __init__(
        self,
        grid: Sequence[int],
        near_s: Sequence[float],
        slope_s: Sequence[float] | None = None,
        *,
        n_context: int = 64,
        spread: float = SPREAD,
    ) -> None:
        slope_s = [0.0] * len(grid) if slope_s is None else slope_s
        if not len(grid) == len(near_s) == len(slope_s):
            raise ConfigError("a cost curve needs one time and one slope for every size")
        if not grid or grid[0] != 1 or any(a >= b for a, b in itertools.pairwise(grid)):
            raise ConfigError(f"the sizes of a cost curve rise from 1; these are {list(grid)}")
        if not all(0 < s < math.inf for s in near_s) or not all(0 <= s < 1 for s in slope_s):
            raise ConfigError(
                "a cost curve needs finite times above zero and slopes of zero or more"
            )
        self._grid = tuple(int(n) for n in grid)
        self._near = np.asarray(near_s, dtype=np.float64)
        self._slope = np.asarray(slope_s, dtype=np.float64)
        self._n_context = n_context
        self._calm = min(2.0, max(1.0, spread))
        self._online = Online(2 * len(self._grid), self._calm)
        self._tabulate(_FAR)

    @property
    def grid(self) -> tuple[int, ...]:
        """The row counts that were timed."""
        return self._grid

    @property
    def drift(self) -> float:
        """What forwards take now over what they took when the curve was measured."""
        return math.exp(self._online.drift)

    @property
    def spread(self) -> float:
        """90th percentile of the last forwards' times over what was foretold; at least 1."""
        return self._online.spread

    def seconds(self, n: int, n_context: float, n_sequences: int = 1) -> float:
        """Return what a forward over *n* rows takes, typically.

        Args:
            n: Rows of all sequences together.
            n_context: Cached tokens of a sequence; of several, the mean.
            n_sequences: How many sequences the rows belong to.
        """
        return float(self.sweep(n, n, n_context, n_sequences)[0])

    def high(self, n: int, n_context: float, n_sequences: int = 1) -> float:
        """Return the 90th percentile of what `seconds` is the median of."""
        return self.seconds(n, n_context, n_sequences) * self.spread

    def sweep(
        self, first: int, last: int, n_context: float, n_sequences: int = 1
    ) -> NDArray[np.float64]:
        """Return `seconds` for every size from *first* to *last*, both included."""
        if last >= len(self._scale):
            self._tabulate(2 * last)
        factors = self._online.factors(n_sequences)
        return self._base(slice(first, last + 1), n_context, n_sequences, factors)

    def observe(self, n: int, n_context: float, seconds: float, n_sequences: int = 1) -> None:
        """Take in that a forward over *n* rows took so many *seconds*."""
        if not 0 < seconds < math.inf:
            return
        if n >= len(self._scale):
            self._tabulate(2 * n)
        base = float(self._base(slice(n, n + 1), n_context, n_sequences, None)[0])
        self._online.observe(n_sequences, int(self._bucket[n]), math.log(seconds / base))

    def _base(
        self,
        rows: slice,
        n_context: float,
        n_sequences: int,
        factors: NDArray[np.float64] | None,
    ) -> NDArray[np.float64]:
        beyond = max(0.0, n_context - self._n_context)
        further = (n_sequences - 1) * max(n_context, self._n_context) * float(self._slope[0])
        points = self._near + self._slope * beyond + further
        cost: NDArray[np.float64] = (
            np.maximum(points[self._below[rows]], points[self._above[rows]]) * self._scale[rows]
        )
        return cost if factors is None else cost * factors[self._bucket[rows]]

    def _tabulate(self, n_max: int) -> None:
        """Lay out the neighbours of every size up to *n_max*, and the correction it goes by.

        A size of the grid has a correction of its own, and so has each gap between two of them:
        the dearer neighbour is a bound there, and its error must not pass to the neighbours.
        """
        sizes, grid = np.arange(n_max + 1), np.asarray(self._grid)
        last = len(grid) - 1
        above = np.searchsorted(grid, np.maximum(sizes, 1))
        is_point = grid[np.minimum(above, last)] == sizes
        self._above = np.minimum(above, last)
        self._below = np.where(is_point, self._above, np.minimum(np.maximum(above - 1, 0), last))
        self._bucket = np.where(is_point, 2 * self._above, 2 * above - 1)
        self._scale = np.maximum(1.0, sizes / grid[-1])

    def to_json(self) -> dict[str, Any]:
        """Return what was measured, as plain JSON; what was learned since is not part of it."""
        return {
            "grid": list(self._grid),
            "near_s": [round(s, 9) for s in self._near.tolist()],
            "slope_s": [round(s, 12) for s in self._slope.tolist()],
            "n_context": self._n_context,
            "spread": round(self._calm, 4),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the curve that `to_json` wrote.

        Raises:
            ConfigError: If *data* is not one.
        """
        try:
            return cls(
                [int(n) for n in data["grid"]],
                [float(s) for s in data["near_s"]],
                [float(s) for s in data["slope_s"]],
                n_context=int(data["n_context"]),
                spread=float(data["spread"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigError(f"this is no cost curve ({type(exc).__name__})") from exc

    @classmethod
    def measure(
        cls,
        timer: Timer,
        *,
        budget_s: float = 4.0,
        contexts: tuple[int, int] = (64, 512),
        clock: Callable[[], float] = time.perf_counter,
    ) -> Self:
        """Return the curve of the model that *timer* runs, timed within *budget_s* seconds.

        See `time_forwards`; what is not timed is learned from `observe`.
        """
        timed = time_forwards(timer, budget_s=budget_s, contexts=contexts, clock=clock)
        return cls(
            timed.grid,
            timed.near_s,
            timed.slope_s,
            n_context=timed.n_context,
            spread=timed.spread,
        )


def curve_key(fingerprint: str, *, dtype: str, n_threads: int, packed: bool) -> str:
    """Return the name that a curve is remembered by.

    Args:
        fingerprint: Of processor, torch and model; see `calibration.fingerprint`.
        dtype: Number format of the weights.
        n_threads: Compute threads.
        packed: Whether the weights are laid out for the processor's kernels.
    """
    return f"{fingerprint}/{dtype}/{n_threads}/{'packed' if packed else 'plain'}"


def recall(file: Path, key: str) -> CostCurve | None:
    """Return the curve stored under *key* in *file*; None if there is none."""
    try:
        return CostCurve.from_json(json.loads(file.read_text())[key])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(file: Path, key: str, curve: CostCurve) -> None:
    """Store *curve* under *key* in *file*, whole or not at all."""
    try:
        known = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    known[key] = curve.to_json()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(known, indent=1))
    draft.replace(file)
