"""Metrics on texts: what an answer repeats, gives away, or shares with another answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from elision.errors import MissingExtraError
from elision.evaluation.metrics.base import Metric, same_rows
from elision.guards.phrases.normal import SEP, N, N_b

SHORT_LETTERS: Final = 8
"""Spans of at most that many letters are judged as words; longer ones wherever they stand."""


def rouge_l_recall(answers: Mapping[int, str], golds: Mapping[int, str]) -> Metric:
    """Return the share of the gold answer's words that the answer holds in order, stemmed.

    Raises:
        MissingExtraError: If rouge-score is not installed.

    Source:
        Lin 2004, by the rouge_score package, as TOFU's code calls it.
    """
    same_rows(answers, golds)
    scorer = _rouge()
    return Metric.mean(
        {i: float(scorer.score(golds[i], text)["rougeL"].recall) for i, text in answers.items()}
    )


@lru_cache(maxsize=1)
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as exc:
        raise MissingExtraError("rouge-score", extra="eval") from exc
    return RougeScorer(["rougeL"], use_stemmer=True)


def is_exposed(text: str, span: str) -> bool:
    """Return whether *text* holds *span* in its normal form; a short one between word boundaries.

    Written without the guard's automaton, so that it can judge the guard.
    """
    if is_short(span):
        return f"{SEP}{N_b(span).strip(SEP)}{SEP}" in f"{SEP}{N_b(text)}{SEP}"
    return N(span) in N(text)


def is_short(span: str) -> bool:
    """Return whether *span* has so few letters and digits that ordinary answers hold it too."""
    return len(N(span)) <= SHORT_LETTERS


def exposure(answers: Mapping[int, str], spans: Mapping[int, str]) -> Metric:
    """Return the share of answers that hold the span of their own row; rows without one are out.

    Source:
        Our own: the N-substring judge of guard.md 1.7 (test 3) and 3.7.
    """
    both = answers.keys() & spans.keys()
    return Metric.mean({i: float(is_exposed(answers[i], spans[i])) for i in sorted(both)})


def identical(answers: Mapping[int, str], others: Mapping[int, str]) -> Metric:
    """Return the share of *answers* that equal the other answer of their row."""
    same_rows(answers, others)
    return Metric.mean({i: float(text == others[i]) for i, text in answers.items()})


def unique_token_ratio(answers: Mapping[int, str]) -> Metric:
    """Return the mean share of different words among all words; empty answers count nought.

    Source:
        The fluency measure of ECO, arXiv:2406.07933.
    """
    words = {i: text.split() for i, text in answers.items()}
    return Metric.mean({i: len({*w}) / len(w) if w else 0.0 for i, w in words.items()})
