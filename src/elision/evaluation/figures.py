"""Figures: what a bench measures, beside its goal, with its spread and its conditions."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure must reach.

    Attributes:
        value: The bound, in the figure's unit.
        sense: Whether the figure must be at most or at least that.
    """

    value: float
    sense: Literal["<=", ">="]

    def met_by(self, value: float) -> bool:
        """Return whether *value* reaches it."""
        return value <= self.value if self.sense == "<=" else value >= self.value

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        figure: Its name, ``bench.what``.
        value: The median, unless the conditions say otherwise.
        unit: Its unit; ``x`` for a ratio.
        goal: What it must reach; None if it is only reported.
        spread: Smallest and largest of the repeated measurements.
        conditions: Model, number format, threads, repeats ... whatever a reader needs to repeat it.
    """

    figure: str
    value: float
    unit: str
    goal: Goal | None = None
    spread: tuple[float, float] | None = None
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def missed(self) -> bool:
        """Whether it has a goal and misses it."""
        return self.goal is not None and not self.goal.met_by(self.value)

    def to_json(self) -> dict[str, Any]:
        """Return the one-line form that ``--json`` prints."""
        goal = str(self.goal) if self.goal else None
        return {**asdict(self), "goal": goal, "conditions": {**machine(), **self.conditions}}


def of(
    name: str,
    samples: Sequence[float],
    unit: str,
    *,
    goal: Goal | None = None,
    pick: Callable[[Sequence[float]], float] = statistics.median,
    **conditions: Any,
) -> Figure:
    """Return the figure that *samples* give: their median, or what *pick* takes."""
    return Figure(
        figure=name,
        value=round(pick(samples), 4),
        unit=unit,
        goal=goal,
        spread=(round(min(samples), 4), round(max(samples), 4)),
        conditions={"n": len(samples), **conditions},
    )


def machine() -> dict[str, Any]:
    """Return what a figure depends on of this machine: processor, cores, Python, torch, date."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def processor() -> str:
    """Return the processor's name, with the matrix extensions that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((li.split(":")[1] for li in text.splitlines() if li.startswith("model name")), "?")
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return " ".join([name.strip(), *flags])


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value below which *share* of *samples* lie, by nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
