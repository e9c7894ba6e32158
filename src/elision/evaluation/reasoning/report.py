"""What a run comes to: a summary for machines, tables for people, values for whoever checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import orjson

from elision.evaluation.figures import Figure, Goal
from elision.evaluation.metrics import Metric
from elision.evaluation.reasoning.data import Suite
from elision.evaluation.reasoning.methods import Method
from elision.evaluation.reasoning.outcomes import Outcomes
from elision.evaluation.reasoning.paired import Comparison, compare
from elision.evaluation.tofu.report import interval

GAIN: Final = 0.05
"""What guidance at 1.25 must gain on LAMBADA, as a share of the items."""
P: Final = 0.01
"""And the p-value that it must stay below."""
FEWEST: Final = 100
"""Items without which neither is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that one run found.

    Attributes:
        suite: What was asked.
        methods: Those compared, the baseline first.
        outcomes: What each came to, by name.
        conditions: Model, items, seeds, machine.
    """

    suite: Suite
    methods: tuple[Method, ...]
    outcomes: Mapping[str, Outcomes]
    conditions: Mapping[str, Any]

    @property
    def baseline(self) -> str:
        """The method that all others are compared with."""
        return self.methods[0].name

    def against(self, baseline: str, metric: str = "accuracy") -> dict[str, Comparison]:
        """Return every other method's comparison with *baseline*, by name."""
        theirs = self.outcomes[baseline].values[metric]
        return {
            name: compare(found.values[metric], theirs)
            for name, found in self.outcomes.items()
            if name != baseline
        }

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Accuracy and paired gain of every method; LAMBADA's guidance has a goal."""
        found = [
            Figure(
                figure=f"reasoning.{self.suite}.{name}", value=round(mean(accuracy), 4),
                unit="share", spread=_bounds(accuracy), conditions=self._told(name),
            )
            for name, accuracy in self._accuracies().items()
        ]  # fmt: skip
        for name, paired in self.against(self.baseline).items():
            found.append(self._gain(name, paired))
        found += self._significance()
        return tuple(found)

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that do not reach their goal."""
        return tuple(figure for figure in self.figures if figure.missed)

    def to_json(self) -> dict[str, Any]:
        """Return the summary without the values per item."""
        return {
            "suite": self.suite,
            "conditions": dict(self.conditions),
            "baseline": self.baseline,
            "methods": {method.name: self._row(method) for method in self.methods},
            "figures": [figure.to_json() for figure in self.figures],
        }

    def write(self, folder: Path) -> None:
        """Write ``summary.json``, ``summary.md`` and ``metrics.jsonl`` (every value by item)."""
        folder.mkdir(parents=True, exist_ok=True)
        data = orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2)
        (folder / "summary.json").write_bytes(data)
        (folder / "summary.md").write_text(self.to_markdown())
        lines = (
            orjson.dumps({"method": name, "metric": metric, **Metric.mean(values).to_json()})
            for name, found in self.outcomes.items()
            for metric, values in found.values.items()
        )
        (folder / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def to_markdown(self) -> str:
        """Return the methods as a table, each with its interval and its paired gain."""
        told = ", ".join(f"{key} {value}" for key, value in self.conditions.items())
        others = self._others()
        paired = self.against(self.baseline)
        head = ["method", "accuracy", f"against {self.baseline}", "won/lost", "exact p", "verdict"]
        rows = [
            [m.name, _told_share(self.outcomes[m.name].values["accuracy"])]
            + _told_paired(paired.get(m.name))
            + [self._cell(m.name, metric) for metric in others]
            for m in self.methods
        ]
        table = [[*head, *others], ["---"] * (len(head) + len(others)), *rows]
        lines = [f"| {' | '.join(row)} |" for row in table]
        listed = [f"- `{m.name}`: {m.summary}{self._tuning(m)}" for m in self.methods]
        return "\n".join(
            [f"# {self.suite}", "", told, "", *lines, *self._rivals(), "", *listed, ""]
        )

    def _rivals(self) -> list[str]:
        """Return what the methods gain on a tuned temperature, which costs nothing, as a table."""
        rival = next((m.name for m in self.methods if m.tuned), None)
        if rival is None:
            return []
        rows = [[name, *_told_paired(p)] for name, p in self.against(rival).items()]
        head = ["method", f"against {rival}", "won/lost", "exact p", "verdict"]
        table = [head, ["---"] * len(head), *rows]
        return ["", *(f"| {' | '.join(row)} |" for row in table)]

    def _others(self) -> list[str]:
        names = dict.fromkeys(n for found in self.outcomes.values() for n in found.values)
        names.pop("accuracy", None)
        has_usage = any(found.usage is not None for found in self.outcomes.values())
        return [*names, *(["usage"] if has_usage else [])]

    def _cell(self, name: str, metric: str) -> str:
        found = self.outcomes[name]
        if metric == "usage":
            return "" if found.usage is None else f"{found.usage:.3f}"
        return f"{mean(found.values[metric]):.3f}" if metric in found.values else ""

    def _tuning(self, method: Method) -> str:
        warmth = self.outcomes[method.name].temperature if method.tuned else None
        return "" if warmth is None else f" ({warmth:g} here)"

    def _row(self, method: Method) -> dict[str, Any]:
        found, paired = self.outcomes[method.name], self.against(self.baseline).get(method.name)
        told = {
            name: {"value": mean(values), "interval": _bounds(values)}
            for name, values in found.values.items()
        }
        return {
            "summary": method.summary,
            "metrics": told,
            "usage": found.usage,
            "n_tokens": found.n_tokens,
            "temperature": found.temperature,
            "paired": None if paired is None else {**asdict(paired), "verdict": paired.verdict},
        }

    def _accuracies(self) -> dict[str, Mapping[int, float]]:
        return {name: found.values["accuracy"] for name, found in self.outcomes.items()}

    def _told(self, name: str) -> dict[str, Any]:
        return {**self.conditions, "usage": self.outcomes[name].usage}

    def _gain(self, name: str, paired: Comparison) -> Figure:
        goal = Goal(value=GAIN, sense=">=") if self._is_judged(name) else None
        low, high = paired.interval
        return Figure(
            figure=f"reasoning.{self.suite}.{name}.gain", value=round(paired.gain, 4),
            unit="share", goal=goal, spread=(round(low, 4), round(high, 4)),
            conditions={
                "won": paired.n_won, "lost": paired.n_lost, "p": paired.p,
                "verdict": paired.verdict, **self.conditions,
            },
        )  # fmt: skip

    def _significance(self) -> list[Figure]:
        return [
            Figure(
                figure=f"reasoning.{self.suite}.{name}.p", value=paired.p, unit="p",
                goal=Goal(value=P, sense="<="), conditions=dict(self.conditions),
            )
            for name, paired in self.against(self.baseline).items()
            if self._is_judged(name)
        ]  # fmt: skip

    def _is_judged(self, name: str) -> bool:
        enough = len(self.outcomes[name].values["accuracy"]) >= FEWEST
        return enough and (self.suite, name) == ("lambada", "cfg-1.25")


def mean(values: Mapping[int, float]) -> float:
    """Return the mean over the items."""
    return fmean(values.values())


def _bounds(values: Mapping[int, float]) -> tuple[float, float] | None:
    """Return the 95 % interval: Wilson's where every value is nought or one, else the bootstrap."""
    return interval(Metric.mean(dict(values)))


def _told_share(values: Mapping[int, float]) -> str:
    low, high = _bounds(values) or (0.0, 1.0)
    return f"{100 * mean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _told_paired(paired: Comparison | None) -> list[str]:
    if paired is None:
        return ["", "", "", ""]
    low, high = (100 * end for end in paired.interval)
    return [
        f"{100 * paired.gain:+.1f} ({low:+.1f} to {high:+.1f})",
        f"{paired.n_won}/{paired.n_lost}",
        f"{paired.p:.2g}",
        paired.verdict,
    ]
