"""leak@k: the worst of k samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

from elision.errors import ConfigError
from elision.evaluation.metrics.base import Metric


def leak_at_k(scores: Mapping[int, Sequence[float]], k: int) -> Metric:
    """Return the expected greatest score among *k* independent samples, averaged over prompts.

    Args:
        scores: By prompt, the score of each of n >= k samples; binary ones make it pass@k.
        k: Samples an attacker takes.

    Raises:
        ConfigError: If a prompt has fewer than *k* samples.

    Source:
        leak@k, arXiv:2511.04934; the unbiased estimate over sorted scores
        ``sum_i C(i-1, k-1) / C(n, k) * S_(i)`` is guard.md 3.7.
    """
    return Metric.mean({index: _expected_max(samples, k) for index, samples in scores.items()})


def _expected_max(samples: Sequence[float], k: int) -> float:
    n = len(samples)
    if not 1 <= k <= n:
        raise ConfigError(f"leak@{k} needs at least {max(k, 1)} samples of every prompt, not {n}")
    ordered = sorted(samples)
    return sum(comb(i - 1, k - 1) * ordered[i - 1] for i in range(k, n + 1)) / comb(n, k)
