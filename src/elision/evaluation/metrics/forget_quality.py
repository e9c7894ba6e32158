"""Forget quality: can the suppressed model be told from one that never knew?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from typing import Any

from elision.errors import MissingExtraError

_LEAST = 5e-324


@dataclass(frozen=True, slots=True)
class ForgetQuality:
    """A two-sample Kolmogorov-Smirnov test between truth ratios.

    Attributes:
        p: Its p-value. It saturates and swings: look at the statistic beside it, and never average
            p over seeds.
        log10_p: Its decimal logarithm, not below -324.
        statistic: Greatest distance between the two distribution functions.
        n: Items on either side.
    """

    p: float
    log10_p: float
    statistic: float
    n: tuple[int, int]


def forget_quality(
    ratios: Mapping[int, float], retain: Mapping[int, float] | None
) -> ForgetQuality | None:
    """Compare truth ratios on the forget set with those of a model trained without it.

    Args:
        ratios: ``R`` per item (see `truth_ratio`) of the model under test.
        retain: ``R`` per item of the retain model.

    Returns:
        The test; None without a retain model, for then nothing can be said: neither 0 nor 1.

    Raises:
        MissingExtraError: If scipy is not installed.

    Source:
        Maini et al. 2024 (TOFU), arXiv:2401.06121.
    """
    if not retain or not ratios:
        return None
    try:
        from scipy.stats import ks_2samp
    except ImportError as exc:
        raise MissingExtraError("scipy", extra="eval") from exc
    test: Any = ks_2samp([*ratios.values()], [*retain.values()])
    p = float(test.pvalue)
    sizes = len(ratios), len(retain)
    return ForgetQuality(p, log10(max(p, _LEAST)), float(test.statistic), sizes)
