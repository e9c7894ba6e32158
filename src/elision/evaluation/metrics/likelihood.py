"""TOFU's metrics on losses: probability, truth ratio, model utility.

A *loss* is the mean negative log-probability per token of an answer, end token included, in nats.

Source:
    Maini et al. 2024 (TOFU), arXiv:2401.06121, and its evaluation code; guard.md 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from statistics import fmean, harmonic_mean
from typing import Literal, TypeAlias

from elision.evaluation.metrics.base import Metric, same_rows

Losses: TypeAlias = Mapping[int, float]
WrongLosses: TypeAlias = Mapping[int, Sequence[float]]
Form: TypeAlias = Literal["geometric", "arithmetic"]


def probability(losses: Losses) -> Metric:
    """Return the mean over items of ``exp(-loss)``: ``p ** (1 / |answer|)``."""
    return Metric.mean({index: exp(-loss) for index, loss in losses.items()})


def choice_probability(right: Losses, wrong: WrongLosses) -> Metric:
    """Return the right answer's share of probability among all answers of its item."""
    same_rows(right, wrong)
    return Metric.mean(
        {i: exp(-loss) / (exp(-loss) + sum(exp(-w) for w in wrong[i])) for i, loss in right.items()}
    )


def truth_ratio(right: Losses, wrong: WrongLosses, *, form: Form = "geometric") -> dict[int, float]:
    """Return ``R`` per item: the wrong answers' probability over the right one's.

    Args:
        right: Losses of the paraphrased answer; of the answer itself for real authors and facts.
        wrong: Losses of the wrong answers.
        form: The mean over wrong answers: of their losses (``geometric``, canonical), or of their
            probabilities (``arithmetic``, as older helper code of TOFU had it).
    """
    same_rows(right, wrong)
    of = _geometric if form == "geometric" else _arithmetic
    return {index: of(wrong[index]) / exp(-loss) for index, loss in right.items()}


def _geometric(losses: Sequence[float]) -> float:
    return exp(-fmean(losses))


def _arithmetic(losses: Sequence[float]) -> float:
    return fmean(exp(-loss) for loss in losses)


def forget_truth_ratio(ratios: Mapping[int, float]) -> Metric:
    """Return the mean of ``min(R, 1/R)``. Higher is not better: it must match the retain model."""
    return Metric.mean({i: min(r, 1 / r) if r else 0.0 for i, r in ratios.items()})


def utility_truth_ratio(ratios: Mapping[int, float]) -> Metric:
    """Return the mean of ``max(0, 1 - R)``: how much likelier the truth is than what is wrong."""
    return Metric.mean({i: max(0.0, 1 - r) for i, r in ratios.items()})


def model_utility(parts: Sequence[float | None]) -> float | None:
    """Return the harmonic mean of the nine parts: nought if one is nought, None if one is missing.

    Args:
        parts: Probability, ROUGE and truth ratio on retain set, real authors and world facts.
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    return harmonic_mean(known) if min(known) > 0 else 0.0
