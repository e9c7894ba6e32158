"""From answers and likelihoods to TOFU's metrics, for one system at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from elision.evaluation.metrics import (
    Metric,
    choice_probability,
    exposure,
    forget_truth_ratio,
    identical,
    leak_at_k,
    model_utility,
    probability,
    rouge_l_recall,
    truth_ratio,
    unique_token_ratio,
    utility_truth_ratio,
)
from elision.evaluation.metrics.text import is_exposed
from elision.evaluation.tofu.data import UTILITY_SETS, Subset, Tofu
from elision.evaluation.tofu.generate import Answer, Likelihood

Metrics: TypeAlias = dict[str, Metric]

KS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of samples at which leak@k is told, as far as there are samples."""
FORGET_SETS: Final[tuple[Subset, ...]] = ("forget", "paraphrased")


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything that was asked of one system.

    Attributes:
        answers: Greedy answers by subset and row.
        likelihoods: By subset and row.
        samples: Sampled answers to forget questions by row.
    """

    answers: dict[Subset, dict[int, Answer]] = field(default_factory=dict)
    likelihoods: dict[Subset, dict[int, Likelihood]] = field(default_factory=dict)
    samples: dict[int, list[str]] = field(default_factory=dict)

    def texts(self, subset: Subset) -> dict[int, str]:
        """Return the texts of a subset's answers."""
        return {index: answer.text for index, answer in self.answers.get(subset, {}).items()}

    def as_plain(self) -> Findings:
        """Return the findings with the model's own likelihoods in the place of the guarded ones."""
        plain: dict[Subset, dict[int, Likelihood]] = {
            subset: {index: _plain(row) for index, row in rows.items()}
            for subset, rows in self.likelihoods.items()
        }
        return Findings(answers=self.answers, likelihoods=plain, samples=self.samples)


def _plain(row: Likelihood) -> Likelihood:
    answer, paraphrase, wrong = row.plain
    return Likelihood(
        answer=answer, paraphrase=paraphrase, wrong=wrong, plain=row.plain,
        n_floored=0, n_tokens=row.n_tokens, applicable=True,
    )  # fmt: skip


def measure(tofu: Tofu, found: Findings) -> Metrics:
    """Return every metric of one system, by ``subset.metric``.

    Likelihood metrics are over the items to which they apply; where a gate refuses they do not.
    """
    metrics: Metrics = {}
    for subset in found.answers:
        metrics |= _of_texts(tofu, subset, found)
    for subset, rows in found.likelihoods.items():
        metrics |= _of_likelihoods(subset, rows)
    parts = [m.agg_value for m in _utility_parts(metrics)]
    if parts:
        metrics["utility"] = Metric(model_utility(parts), {})
    return metrics | _of_samples(tofu, found.samples)


def _utility_parts(metrics: Metrics) -> Iterator[Metric]:
    names = [f"{s}.{m}" for s in UTILITY_SETS for m in ("probability", "rouge", "truth_ratio")]
    if all(name in metrics for name in names):
        yield from (metrics[name] for name in names)


def _of_texts(tofu: Tofu, subset: Subset, found: Findings) -> Metrics:
    texts = found.texts(subset)
    golds = {item.index: item.answer for item in tofu.items[subset] if item.index in texts}
    refused = {i: float(a.finish == "content_filter") for i, a in found.answers[subset].items()}
    metrics = {
        f"{subset}.rouge": rouge_l_recall(texts, golds),
        f"{subset}.refused": Metric.mean(refused),
        f"{subset}.unique_tokens": unique_token_ratio(texts),
        f"{subset}.any_registered": any_exposed(texts, tofu.registered.values()),
    }
    if subset in FORGET_SETS:
        metrics[f"{subset}.exposure"] = exposure(texts, tofu.registered)
        metrics[f"{subset}.exposure_short"] = exposure(texts, tofu.short)
    return metrics


def any_exposed(texts: Mapping[int, str], spans: Iterable[str]) -> Metric:
    """Return the share of *texts* that hold any of *spans*, whosever row it is from."""
    known = (*dict.fromkeys(spans),)
    return Metric.mean({i: float(_holds_any(text, known)) for i, text in texts.items()})


def _holds_any(text: str, spans: Sequence[str]) -> bool:
    return any(is_exposed(text, span) for span in spans)


def _of_likelihoods(subset: Subset, rows: Mapping[int, Likelihood]) -> Metrics:
    valid = {index: row for index, row in rows.items() if row.applicable}
    answer = {index: row.answer for index, row in valid.items()}
    wrong = {index: row.wrong for index, row in valid.items()}
    ratios = truth_ratio({i: row.paraphrase for i, row in valid.items()}, wrong)
    is_choice = subset in ("real_authors", "world_facts")
    fold = forget_truth_ratio if subset == "forget" else utility_truth_ratio
    floored = {i: row.n_floored / row.n_tokens for i, row in rows.items()}
    return {
        f"{subset}.probability": (
            choice_probability(answer, wrong) if is_choice else probability(answer)
        ),
        f"{subset}.truth_ratio": fold(ratios),
        f"{subset}.floored": Metric.mean(floored),
        f"{subset}.not_applicable": Metric.mean(
            {i: float(not row.applicable) for i, row in rows.items()}
        ),
    }


def raw_ratios(found: Findings) -> dict[int, float]:
    """Return the forget set's truth ratios, unfolded, as forget quality wants them."""
    rows = {i: r for i, r in found.likelihoods.get("forget", {}).items() if r.applicable}
    right = {i: row.paraphrase for i, row in rows.items()}
    return truth_ratio(right, {i: row.wrong for i, row in rows.items()})


def _of_samples(tofu: Tofu, samples: Mapping[int, Sequence[str]]) -> Metrics:
    if not samples:
        return {}
    every = (*dict.fromkeys(tofu.registered.values()),)
    golds = {item.index: item.answer for item in tofu.items["forget"]}
    scores = {
        "exposure": {
            i: [float(is_exposed(t, tofu.registered[i])) for t in texts]
            for i, texts in samples.items()
            if i in tofu.registered
        },
        "any_registered": {
            i: [float(_holds_any(t, every)) for t in texts] for i, texts in samples.items()
        },
        "rouge": {i: _recalls(texts, golds[i]) for i, texts in samples.items()},
    }
    n = min(len(texts) for texts in samples.values())
    return {
        f"leak.{name}@{k}": leak_at_k(rows, k)
        for name, rows in scores.items()
        for k in KS
        if k <= n
    }


def _recalls(texts: Sequence[str], gold: str) -> list[float]:
    found = rouge_l_recall(dict(enumerate(texts)), dict.fromkeys(range(len(texts)), gold))
    return [*found.value_by_index.values()]


def sameness(tofu: Tofu, guarded: Findings, unguarded: Findings) -> Metrics:
    """Compare guarded with unguarded answers on what must stay as it is.

    Returns:
        By subset, the share of identical answers among those whose unguarded text holds no
        registered phrase (``identical``), and the share that holds one (``with_phrase``).
    """
    metrics: Metrics = {}
    spans = (*dict.fromkeys(tofu.registered.values()),)
    for subset in UTILITY_SETS:
        ours, theirs = guarded.texts(subset), unguarded.texts(subset)
        if not (both := ours.keys() & theirs.keys()):
            continue
        held = any_exposed({i: theirs[i] for i in sorted(both)}, spans)
        clean = [i for i, holds in held.value_by_index.items() if not holds]
        metrics[f"{subset}.with_phrase"] = held
        metrics[f"{subset}.identical"] = identical(
            {i: ours[i] for i in clean}, {i: theirs[i] for i in clean}
        )
    return metrics
