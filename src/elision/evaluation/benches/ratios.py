"""What a race comes to: tokens per second over tokens per second, by group and over all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elision.evaluation.benches.racing import Run, Runs
from elision.evaluation.figures import Figure, Goal, of


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times faster one contestant is than another.

    Attributes:
        groups: By group: the ratio of all its tokens over all its seconds.
        pairs: By group: question by question.
    """

    groups: dict[str, float] = field(default_factory=dict)
    pairs: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, fast: Runs, slow: Runs) -> Ratios:
        """Compare the runs of *fast* with those of *slow*, tokens per second.

        Answers without a token count in their group's seconds only; a group in which one of the
        two never wrote any is left out.
        """
        groups = [g for g in fast if rate(fast[g]) > 0 and rate(slow[g]) > 0]
        return cls(
            {group: rate(fast[group]) / rate(slow[group]) for group in groups},
            {group: _pairs(fast[group], slow[group]) for group in groups},
        )

    @property
    def overall(self) -> float:
        """Geometric mean over the groups."""
        return geometric_mean(self.groups.values())


def _pairs(fast: Sequence[Run], slow: Sequence[Run]) -> list[float]:
    both = [(f, s) for f, s in zip(fast, slow, strict=True) if f.n_tokens and s.n_tokens]
    return [f.rate / s.rate for f, s in both] or [rate(fast) / rate(slow)]


def rate(runs: Sequence[Run]) -> float:
    """Return the tokens per second of *runs* together."""
    return sum(run.n_tokens for run in runs) / sum(run.seconds for run in runs)


def rate_of_all(runs: Runs) -> float:
    """Return the tokens per second over all groups."""
    return rate(every(runs))


def decoding_rate(runs: Runs) -> float:
    """Return the tokens per second behind the first text, over all groups."""
    n_tokens = sum(max(0, run.n_tokens - 1) for run in every(runs))
    return n_tokens / sum(run.seconds - run.first_s for run in every(runs))


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive *values*."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def every(runs: Runs) -> list[Run]:
    """Return the runs of all groups."""
    return [run for group in runs.values() for run in group]


def tokens_per_step(runs: Sequence[Run]) -> float:
    """Return the tokens that *runs* gained per forward; 0 if it is not known.

    The first token of each came with its prompt.
    """
    known = [run for run in runs if run.n_steps]
    n_tokens = sum(max(0, run.n_tokens - 1) for run in known)
    return n_tokens / max(1, sum(run.n_steps for run in known))


# --- figures -------------------------------------------------------------------------------------


def overall(name: str, ratios: Ratios, *, goal: float | None, **conditions: Any) -> Figure:
    """Return the figure over all groups."""
    return of(
        name,
        list(ratios.groups.values()),
        "x",
        goal=None if goal is None else Goal(value=goal, sense=">="),
        pick=geometric_mean,
        statistic="geometric mean of the groups' tokens/s over tokens/s; spread over the groups",
        **conditions,
    )


def by_group(name: str, ratios: Ratios, *, goal: float, **conditions: Any) -> Iterator[Figure]:
    """Yield one figure per group."""
    for group, pairs in ratios.pairs.items():
        yield exactly(
            f"{name}.{group}",
            ratios.groups[group],
            pairs,
            "x",
            goal=Goal(value=goal, sense=">="),
            statistic="all tokens/s over all tokens/s; spread over the questions",
            **conditions,
        )


def exactly(
    name: str,
    value: float,
    samples: Sequence[float],
    unit: str,
    *,
    goal: Goal | None = None,
    **conditions: Any,
) -> Figure:
    """Return the figure of *value*, which is no statistic of *samples*; they give the spread."""
    return of(name, samples, unit, goal=goal, pick=lambda _: value, **conditions)


def listed(values: Mapping[str, float]) -> str:
    """Return *values* in one cell of a table."""
    return "; ".join(f"{name} {value:.3g}" for name, value in values.items())
