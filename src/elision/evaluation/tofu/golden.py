"""Golden values: the metrics, fed with the published logs, must give the published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import orjson

from elision.errors import ConfigError
from elision.evaluation.figures import Figure, Goal
from elision.evaluation.metrics import (
    Metric,
    choice_probability,
    exposure,
    forget_quality,
    forget_truth_ratio,
    model_utility,
    probability,
    truth_ratio,
    utility_truth_ratio,
)
from elision.evaluation.metrics.likelihood import Form
from elision.evaluation.tofu.data import read_jsonl

_TASKS: Final = (
    "eval_log.json",
    "eval_real_author_wo_options.json",
    "eval_real_world_wo_options.json",
    "eval_log_forget.json",
)
GOLDEN: Final[Mapping[str, tuple[float, ...]]] = {
    "llama2-7b_full": (
        0.9895, 0.9857, 0.4747, 0.4555, 0.9330, 0.5962, 0.4186, 0.8825, 0.5390,
        0.9909, 0.9854, 0.5160, 0.6227,
    ),
    "llama2-7b_retain90": (
        0.9889, 0.9758, 0.4710, 0.4341, 0.9230, 0.5707, 0.4143, 0.8974, 0.5442,
        0.1476, 0.4082, 0.6740, 0.6137,
    ),
    "llama2-7b_retain95": (
        0.9883, 0.9799, 0.4629, 0.4167, 0.9530, 0.5442, 0.4025, 0.8868, 0.5279,
        0.1547, 0.3980, 0.6741, 0.6006,
    ),
    "llama2-7b_retain99": (
        0.9906, 0.9889, 0.4646, 0.4593, 0.9280, 0.6037, 0.4122, 0.8825, 0.5390,
        0.1795, 0.3972, 0.6849, 0.6207,
    ),
    "phi_full": (
        0.9261, 0.9293, 0.4827, 0.3774, 0.4157, 0.4560, 0.4090, 0.7774, 0.4923,
        0.9282, 0.9249, 0.4834, 0.5221,
    ),
    "phi_retain90": (
        0.9231, 0.9200, 0.4847, 0.3842, 0.4753, 0.4638, 0.4081, 0.7557, 0.4883,
        0.1349, 0.4279, 0.6288, 0.5320,
    ),
}  # fmt: skip
"""Probability, ROUGE, truth ratio of retain, real authors, world facts and forget; then utility
(guard.md 3.9, geometric truth ratio)."""

GOLDEN_QUALITY: Final[Mapping[tuple[str, Form], tuple[float, float]]] = {
    ("llama2-7b", "geometric"): (0.39667, 1.834e-21),
    ("llama2-7b", "arithmetic"): (0.41, 6.03e-23),
    ("phi", "geometric"): (0.34667, 2.194e-16),
    ("phi", "arithmetic"): (0.35667, 2.43e-17),
}
"""Statistic and p-value of full against retain90 over the logs' 300 forget rows."""

GOLDEN_EXPOSURE: Final = {"gen_full": 0.978, "gen_retain90": 0.106}
"""Share of the 274 rows with a gold span whose Llama-2 answer holds it (guard.md 1.7, test 3)."""

_NAMES: Final = tuple(
    f"{subset}.{metric}"
    for subset in ("retain", "real_authors", "world_facts", "forget")
    for metric in ("probability", "rouge", "truth_ratio")
)


@dataclass(frozen=True, slots=True)
class Log:
    """One model's evaluation log: four tasks, each with columns by row."""

    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def read(cls, file: Path) -> Log:
        """Read a log of TOFU's evaluation code.

        Raises:
            ConfigError: If it is missing or no JSON.
        """
        try:
            return cls(orjson.loads(file.read_bytes()))
        except (OSError, orjson.JSONDecodeError) as exc:
            raise ConfigError(f"{file.name} cannot be read as a log of TOFU's evaluation") from exc

    def column(self, task: str, name: str) -> dict[int, Any]:
        """Return one column by row."""
        return {int(index): value for index, value in self.tasks[task][name].items()}

    def ratios(self, task: str, form: Form = "geometric") -> dict[int, float]:
        """Return the truth ratio of every row."""
        right = self.column(task, "avg_paraphrased_loss")
        return truth_ratio(right, self.column(task, "average_perturb_loss"), form=form)

    def metrics(self, form: Form = "geometric") -> list[float]:
        """Return the thirteen numbers of `GOLDEN`, in its order."""
        parts = [value for task in _TASKS for value in self._task(task, form)]
        utility = model_utility(parts[:9])
        return [*parts, 0.0 if utility is None else utility]

    def _task(self, task: str, form: Form) -> tuple[float, float, float]:
        losses = self.column(task, "avg_gt_loss")
        is_choice = "real" in task
        wrong = self.column(task, "average_perturb_loss")
        chance = choice_probability(losses, wrong) if is_choice else probability(losses)
        fold = forget_truth_ratio if "forget" in task else utility_truth_ratio
        rouge = fmean(self.column(task, "rougeL_recall").values())
        return _value(chance), rouge, _value(fold(self.ratios(task, form)))


def check_golden(data: Path) -> Iterator[Figure]:
    """Yield every golden value's deviation from what the metrics give now.

    Args:
        data: TOFU's folder with ``reference_logs/`` and the Llama-2 generations.

    Raises:
        ConfigError: If a file is missing.
    """
    logs = {name: Log.read(data / "reference_logs" / f"{name}.json") for name in GOLDEN}
    for name, log in logs.items():
        found = zip((*_NAMES, "utility"), log.metrics(), GOLDEN[name], strict=True)
        for metric, value, want in found:
            yield _figure(f"tofu.golden.{name}.{metric}", value, want, 5e-5)
    for (name, form), (statistic, p) in GOLDEN_QUALITY.items():
        test = forget_quality(*(_forget(logs[f"{name}_{n}"], form) for n in ("full", "retain90")))
        assert test is not None
        where = f"tofu.golden.{name}.{form}"
        yield _figure(f"{where}.ks", test.statistic, statistic, 5e-6)
        yield _figure(f"{where}.p", test.p, p, 5e-3 * p)
    yield from _exposures(data)


def _forget(log: Log, form: Form) -> dict[int, float]:
    return log.ratios("eval_log_forget.json", form)


def _exposures(data: Path) -> Iterator[Figure]:
    rows = read_jsonl(data / "generations_llama2-7b_full_vs_retain90.jsonl")
    spans = {r["idx"]: r["entity"] for r in read_jsonl(data / "forget10_entity_spans_uds.jsonl")}
    for column, want in GOLDEN_EXPOSURE.items():
        answers = {row["idx"]: row[column] for row in rows if row["split"] == "forget"}
        judged = exposure(answers, spans)
        yield _figure(f"tofu.golden.exposure.{column}", _value(judged), want, 5e-3)


def _figure(name: str, value: float, want: float, tolerance: float) -> Figure:
    return Figure(
        figure=name,
        value=abs(value - want),
        unit="off",
        goal=Goal(value=tolerance, sense="<="),
        conditions={"found": value, "published": want},
    )


def _value(metric: Metric) -> float:
    assert metric.agg_value is not None
    return metric.agg_value
