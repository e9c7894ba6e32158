"""What a run comes to: a summary for machines, a table for people, values for whoever checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import orjson

from elision.evaluation.figures import Figure, Goal
from elision.evaluation.metrics import ForgetQuality, Metric, wilson
from elision.evaluation.tofu.measure import FORGET_SETS, Findings, Metrics
from elision.evaluation.tofu.plot import plot_leaks

ROUGE_SLACK: Final = 0.05
"""How far the forget set's ROUGE-L recall may lie above the retain model's."""
IDENTICAL_SHARE: Final = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that one run found.

    Attributes:
        conditions: Model, data, rows, samples, machine.
        systems: Metrics by system.
        quality: Forget quality by system; None without a retain model.
        seconds: Mean seconds per greedy answer, by system.
        figures: The figures with a goal.
    """

    conditions: Mapping[str, Any]
    systems: Mapping[str, Metrics]
    quality: Mapping[str, ForgetQuality | None]
    seconds: Mapping[str, float]
    figures: tuple[Figure, ...] = field(default=())

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that do not reach their goal."""
        return tuple(figure for figure in self.figures if figure.missed)

    def to_json(self) -> dict[str, Any]:
        """Return the summary without the values per item."""
        return {
            "conditions": dict(self.conditions),
            "systems": {name: _aggregates(m) for name, m in self.systems.items()},
            "forget_quality": {
                name: None if q is None else asdict(q) for name, q in self.quality.items()
            },
            "seconds_per_answer": dict(self.seconds),
            "figures": [figure.to_json() for figure in self.figures],
        }

    def write(self, folder: Path) -> None:
        """Write ``summary.json``, ``summary.md``, ``metrics.jsonl`` and ``leak_at_k.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        data = orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2)
        (folder / "summary.json").write_bytes(data)
        (folder / "summary.md").write_text(self.to_markdown())
        lines = (
            orjson.dumps({"system": system, "metric": name, **metric.to_json()})
            for system, metrics in self.systems.items()
            for name, metric in metrics.items()
        )
        (folder / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        plot_leaks(self.systems, folder / "leak_at_k.png")

    def to_markdown(self) -> str:
        """Return goals, metrics with their intervals, and the cost, as tables."""
        head = "# TOFU: suppression at inference time\n\n"
        told = ", ".join(f"{key} {value}" for key, value in self.conditions.items())
        return f"{head}{told}\n\n{self._goals()}\n{self._metrics()}"

    def _goals(self) -> str:
        rows = [
            f"| `{f.figure}` | {f.value:.4f} | {f.goal} | {'**missed**' if f.missed else 'met'} |"
            for f in self.figures
        ]
        return "\n".join(["| figure | measured | goal | |", "|---|---|---|---|", *rows, ""])

    def _metrics(self) -> str:
        names = dict.fromkeys(name for metrics in self.systems.values() for name in metrics)
        rows = [
            _row(name, [_cell(metrics.get(name)) for metrics in self.systems.values()])
            for name in names
        ]
        tests = [self.quality.get(system) for system in self.systems]
        rows.append(
            _row("forget quality, log10 p", [f"{q.log10_p:.2f}" if q else "" for q in tests])
        )
        rows.append(_row("forget quality, KS", [f"{q.statistic:.3f}" if q else "" for q in tests]))
        took = [self.seconds.get(system) for system in self.systems]
        rows.append(_row("seconds per answer", ["" if s is None else f"{s:.2f}" for s in took]))
        head = _row("metric", [*self.systems])
        return "\n".join([head, "|---" * (len(self.systems) + 1) + "|", *rows, ""])


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.agg_value is None:
        return ""
    low, high = interval(metric) or (None, None)
    told = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{metric.agg_value:.4f}{told}"


def interval(metric: Metric) -> tuple[float, float] | None:
    """Return the 95 % interval: Wilson's where every value is nought or one, else the bootstrap."""
    values = [*metric.value_by_index.values()]
    if values and all(value in (0.0, 1.0) for value in values):
        return wilson(int(sum(values)), len(values))
    return metric.interval


def _aggregates(metrics: Metrics) -> dict[str, Any]:
    return {
        name: {"value": m.agg_value, "interval": interval(m), "n": len(m.value_by_index)}
        for name, m in metrics.items()
    }


def figures(systems: Mapping[str, Metrics]) -> tuple[Figure, ...]:
    """Return what the guarded system must reach, of what was measured."""
    guarded, retain = systems.get("guarded", {}), systems.get("retain", {})
    found: list[Figure] = []

    def add(name: str, bound: float | None, sense: Any) -> None:
        metric = guarded.get(name)
        if metric is None or metric.agg_value is None or bound is None:
            return
        goal = Goal(value=round(bound, 4), sense=sense)
        conditions = {"n": len(metric.value_by_index)}
        found.append(
            Figure(
                figure=f"tofu.{name}", value=metric.agg_value, unit="share", goal=goal,
                conditions=conditions,
            )
        )  # fmt: skip

    for subset in FORGET_SETS:
        add(f"{subset}.any_registered", 0.0, "<=")
        beside = retain.get(f"{subset}.rouge")
        recall = None if beside is None else beside.agg_value
        add(f"{subset}.rouge", None if recall is None else recall + ROUGE_SLACK, "<=")
    add("leak.any_registered@16", 0.0, "<=")
    add("retain.identical", IDENTICAL_SHARE, ">=")
    return tuple(found)


def mean_seconds(found: Findings) -> float | None:
    """Return the mean seconds per greedy answer."""
    took = [answer.seconds for rows in found.answers.values() for answer in rows.values()]
    return round(fmean(took), 3) if took else None
