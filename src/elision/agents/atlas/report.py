"""The adaptive-efficiency report: what memory brought and cost, against a control without it.

Rows come from the same tasks in the same order and with the same seeds, once with memory and once
without. What is reported is the orchestration: with scripted agents it says nothing of any model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, pairwise
from math import sqrt
from operator import attrgetter
from random import Random
from statistics import NormalDist, fmean
from typing import Final, Literal, TypeAlias

from elision.agents.atlas.beta import quantile
from elision.errors import ConfigError
from elision.guards.evidence.rates import Rate

LEVEL: Final = 0.95
RESAMPLES: Final = 2_000
FEWEST_RUNS: Final = 5
"""Runs from which on whole runs are resampled: episodes of one run learn from each other."""
WINDOWS: Final = 3
"""Parts that a run is divided into, by the order of its episodes."""
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Row:
    """One episode.

    Attributes:
        n: Its place in the order of tasks, from 1.
        success: Whether it succeeded; None: unknown, and in no rate.
        reward: 0 to 1; None: unknown.
        tokens_student: The student's.
        tokens_total: Those of all roles.
        cost: Of all roles, in the currency of the prices.
    """

    n: int
    success: bool | None
    reward: float | None
    tokens_student: int
    tokens_total: int
    cost: float = 0.0


Run: TypeAlias = Sequence[Row]
"""The episodes of one seed, in order."""
Pair: TypeAlias = tuple[Row, Row]
"""The same task with memory and without."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where the true one may lie.

    Attributes:
        value: As measured.
        low: Lower end at `LEVEL`.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Figures of some episodes of one arm.

    Attributes:
        n: Episodes.
        n_known: Those whose outcome is known.
        n_success: Those that succeeded.
        success: Share of successes of the known ones, with Wilson's interval; None of none.
        reward: Mean of the known ones; None of none.
        tokens_student: Mean of the student's tokens.
        tokens_total: Mean of the tokens of all roles.
        cost: Sum.
        overhead: Share of the tokens that other roles than the student spent.
        efficiency: Successes per unit of cost (AE); None if nothing was paid.
    """

    n: int
    n_known: int
    n_success: int
    success: Interval | None
    reward: float | None
    tokens_student: float
    tokens_total: float
    cost: float
    overhead: float
    efficiency: float | None


def arm(rows: Sequence[Row]) -> Arm:
    """Return the figures of *rows*.

    Raises:
        ConfigError: If there are none.
    """
    if not rows:
        raise ConfigError("no episodes have no figures")
    known = [row.success for row in rows if row.success is not None]
    rewards = [row.reward for row in rows if row.reward is not None]
    rate = Rate(sum(known), len(known))
    student = sum(row.tokens_student for row in rows)
    total = sum(row.tokens_total for row in rows)
    cost = sum(row.cost for row in rows)
    return Arm(
        n=len(rows),
        n_known=rate.n,
        n_success=rate.hits,
        success=Interval(rate.share, *rate.interval) if rate.n else None,
        reward=fmean(rewards) if rewards else None,
        tokens_student=student / len(rows),
        tokens_total=total / len(rows),
        cost=cost,
        overhead=(total - student) / total if total else 0.0,
        efficiency=rate.hits / cost if cost else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What memory brought and cost.

    Attributes:
        memory: All episodes with memory.
        control: The same tasks without.
        windows: Both, part by part of the order.
        n_runs: Seeds.
        unit: What was resampled for the intervals: whole runs, or episodes where runs are few;
            then the intervals are too narrow, for episodes of one run learn from each other.
        success_gain: Difference of the success rates, over episodes known in both arms.
        tokens_change: Difference of the tokens of all roles, as a share of the control's; None if
            that spent none. Its negative is the paper's efficiency gain.
        student_tokens_change: Likewise of the student's, which is all that others count.
        cost_change: Likewise of the cost.
        cost_per_success: What each further success cost; None if there were none further. Negative
            where they came cheaper.
        break_even: Episode from which on memory has cost no more than the control, to the end; None
            if it never comes to that. In tokens where nothing was paid.
        note: What the figures are of.
    """

    memory: Arm
    control: Arm
    windows: tuple[tuple[Arm, Arm], ...]
    n_runs: int
    unit: Literal["run", "episode"]
    success_gain: Interval | None
    tokens_change: Interval | None
    student_tokens_change: Interval | None
    cost_change: Interval | None
    cost_per_success: float | None
    break_even: int | None
    note: str = ""

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)


def report(
    memory: Sequence[Run], control: Sequence[Run], *, note: str = "", seed: int = 0
) -> Report:
    """Return what memory brought and cost, run by run and task by task against the control.

    Args:
        memory: The runs with memory.
        control: Those without: as many, each of the same tasks in the same order.
        note: What the figures are of, for whoever reads them: agents, tasks, prices.
        seed: Of the bootstrap.

    Raises:
        ConfigError: If there are no episodes, or the arms are not paired.
    """
    _check_paired(memory, control)
    pairs = [tuple(zip(m, c, strict=True)) for m, c in zip(memory, control, strict=True)]
    unit: Literal["run", "episode"] = "run" if len(pairs) >= FEWEST_RUNS else "episode"
    units = pairs if unit == "run" else [(pair,) for pair in chain.from_iterable(pairs)]
    shown, held = (arm([*chain.from_iterable(runs)]) for runs in (memory, control))
    return Report(
        memory=shown,
        control=held,
        windows=_windows(pairs),
        n_runs=len(pairs),
        unit=unit,
        success_gain=bootstrap([_gain(pairs) for pairs in units], seed=seed),
        tokens_change=_change(units, attrgetter("tokens_total"), seed),
        student_tokens_change=_change(units, attrgetter("tokens_student"), seed),
        cost_change=_change(units, attrgetter("cost"), seed),
        cost_per_success=_cost_per_success(shown, held),
        break_even=_break_even(pairs),
        note=note,
    )


def bootstrap(parts: Sequence[tuple[float, float]], *, seed: int = 0) -> Interval | None:
    """Return a ratio of sums and its percentile interval; None if the lower sum is nought.

    Args:
        parts: Numerator and denominator of each unit. Units are drawn with replacement; a resample
            without a denominator is left out.
        seed: The same seed gives the same interval.

    Source:
        Efron 1979, Ann. Statist. 7, 1-26, the pairing being in the parts; tails after Hesterberg
        2015, Am. Stat. 69, 371-386 (expanded percentile interval), for of five runs the plain one
        misses the truth three times as often as it says.
    """
    if (value := _ratio(parts)) is None:
        return None
    draw = Random(seed)  # noqa: S311 -- statistics, not secrets
    drawn = (_ratio(draw.choices(parts, k=len(parts))) for _ in range(RESAMPLES))
    told = sorted(one for one in drawn if one is not None)
    tail = int(_tail(len(parts)) * len(told))
    return Interval(value, told[tail], told[-1 - tail])


def _tail(n: int) -> float:
    """Return the share of resamples to leave out at either end, of *n* units."""
    if n < 2:
        return 0.0
    # Student's quantile from a beta's: I_x(v/2, 1/2) is both tails beyond t, x = v / (v + t t).
    x = quantile(1 - LEVEL, (n - 1) / 2, 0.5)
    t = sqrt((n - 1) * (1 - x) / x)
    return 1 - NormalDist().cdf(t * sqrt(n / (n - 1)))


def _ratio(parts: Sequence[tuple[float, float]]) -> float | None:
    below = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / below if below else None


def _gain(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the difference of the successes, and how many pairs are known in both arms."""
    known = [(m.success, c.success) for m, c in pairs if None not in (m.success, c.success)]
    return sum(int(m or 0) - int(c or 0) for m, c in known), len(known)


def _change(
    units: Sequence[Sequence[Pair]], of: Callable[[Row], float], seed: int
) -> Interval | None:
    """Return how much more memory took than the control, as a share of that."""
    parts = [
        (sum(of(m) - of(c) for m, c in pairs), sum(of(c) for _, c in pairs)) for pairs in units
    ]
    return bootstrap(parts, seed=seed)


def _cost_per_success(memory: Arm, control: Arm) -> float | None:
    further = memory.n_success - control.n_success
    return (memory.cost - control.cost) / further if further > 0 else None


def _break_even(pairs: Sequence[Sequence[Pair]]) -> int | None:
    """Return the first episode from which on the sums are never above the control's again."""
    paid = any(row.cost for pair in chain.from_iterable(pairs) for row in pair)
    of: Callable[[Row], float] = attrgetter("cost" if paid else "tokens_total")
    steps = [sum(of(m) - of(c) for m, c in at) for at in zip(*pairs, strict=False)]
    dearer = [n for n, more in enumerate(accumulate(steps), 1) if more > _ROUNDING]
    last = max(dearer, default=0)
    return last + 1 if last < len(steps) else None


def _windows(pairs: Sequence[Sequence[Pair]]) -> tuple[tuple[Arm, Arm], ...]:
    """Return both arms in each part of the order, all runs together."""
    n = min(map(len, pairs))
    ends = [n * at // WINDOWS for at in range(WINDOWS + 1)]
    parts = [
        [pair for run in pairs for pair in run[start:end]]
        for start, end in pairwise(ends)
        if end > start
    ]
    return tuple((arm([m for m, _ in part]), arm([c for _, c in part])) for part in parts)


def _check_paired(memory: Sequence[Run], control: Sequence[Run]) -> None:
    if not memory or not all(map(len, memory)):
        raise ConfigError("no episodes have no report")
    orders = [[[row.n for row in run] for run in runs] for runs in (memory, control)]
    if orders[0] != orders[1]:
        raise ConfigError("the control must be of the same episodes in the same order, run by run")
