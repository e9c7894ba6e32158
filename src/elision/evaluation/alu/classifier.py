"""Tells replies of two kinds apart, by what anybody can see of them; how well says what leaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from zlib import crc32

from elision.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

FIRST: Final = 20
"""Tokens at the beginning of a reply that are looked at one by one."""
_BAG: Final = 128
_RIDGE: Final = 1.0
_STEPS: Final = 30
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_WORD: Final = re.compile(r"\w+")
_REFUSING: Final = (
    "afraid", "ai", "aware", "can't", "cannot", "couldn't", "don't", "familiar", "find", "heard",
    "help", "information", "know", "no", "not", "person", "recogni", "sorry", "unable", "unfort",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """Area under the curve of a classifier, out of fold.

    Attributes:
        value: Probability that it ranks a reply of the first kind above one of the second.
        low: Lower end of the 95 % bootstrap interval, over replies.
        high: Upper end.
        n: Replies of each kind.
    """

    value: float
    low: float
    high: float
    n: tuple[int, int]


def features(reply: str, name: str) -> list[float]:
    """Return what a reply shows: length, words of refusals, its first tokens as a hashed bag.

    The name asked about is taken out: it tells the two kinds apart by itself.
    """
    text = without(reply, name)
    low, tokens = text.casefold(), _TOKEN.findall(text.casefold())
    bag = [0.0] * _BAG
    for token in tokens[:FIRST]:
        bag[crc32(token.encode()) % _BAG] += 1
    flags = [float(word in low) for word in _REFUSING]
    return [log(1 + len(text)), log(1 + len(tokens)), *flags, *bag]


def without(reply: str, name: str) -> str:
    """Return *reply* with every word of *name* in it as ``NAME``, several in a row as one."""
    words = "|".join(map(re.escape, sorted(_WORD.findall(name), key=len, reverse=True)))
    if not words:
        return reply
    one = rf"\b(?:{words})\b"
    return re.sub(rf"{one}(?:[\s-]+{one})*", "NAME", reply, flags=re.IGNORECASE)


def separated(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    folds: int = 5,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Auc:
    """Return how well a logistic regression tells *first* from *second*, cross-validated.

    Every row is scored by a classifier that has not seen it; ranks are taken within folds, for
    scores of different classifiers do not compare.

    Args:
        first: Rows of features of one kind.
        second: Of the other.
        folds: Parts that the rows are divided into.
        seed: Of the division and of the bootstrap.
        n_resamples: Of the bootstrap.

    Raises:
        ConfigError: If there are fewer rows of a kind than folds.
    """
    import numpy as np

    if min(len(first), len(second)) < folds:
        raise ConfigError(f"{folds} folds need as many replies of each kind")
    rows = np.asarray([*first, *second], dtype=float)
    labels = np.asarray([1.0] * len(first) + [0.0] * len(second))
    draw = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=int)
    for kind in (0.0, 1.0):
        places = draw.permutation(np.flatnonzero(labels == kind))
        fold[places] = np.arange(len(places)) % folds
    scores = np.empty(len(labels))
    for held in range(folds):
        kept, out = fold != held, fold == held
        scores[out] = _ranked(_fitted(rows[kept], labels[kept])(rows[out]))
    low, high = _interval(scores, labels, draw, n_resamples)
    return Auc(value=auc(scores, labels), low=low, high=high, n=(len(first), len(second)))


def auc(scores: Array, labels: Array) -> float:
    """Return the share of pairs that *scores* rank right, ties as one half."""
    ranks = _ranked(scores) * len(scores)
    n = int(labels.sum())
    above = ranks[labels == 1].sum() - n * (n + 1) / 2
    return float(above / (n * (len(labels) - n)))


def _ranked(scores: Array) -> Array:
    """Return the mean ranks of *scores*, from above 0 to 1."""
    import numpy as np

    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Array = (last - (counts - 1) / 2)[place] / len(scores)
    return found


def _interval(scores: Array, labels: Array, draw: Any, n: int) -> tuple[float, float]:
    import numpy as np

    places = [np.flatnonzero(labels == kind) for kind in (0.0, 1.0)]
    found = []
    for _ in range(n):
        chosen = np.concatenate([draw.choice(one, len(one)) for one in places])
        found.append(auc(scores[chosen], labels[chosen]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


class _fitted:  # noqa: N801 -- reads as what it returns
    """Logistic regression with an L2 penalty on standardised features, fitted by Newton's method.

    Source:
        Hastie, Tibshirani, Friedman 2009, The Elements of Statistical Learning, 4.4 and 3.4.
    """

    def __init__(self, rows: Array, labels: Array) -> None:
        import numpy as np

        self._mean = rows.mean(axis=0)
        spread = rows.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        x = self._design(rows)
        penalty = np.full(x.shape[1], _RIDGE)
        penalty[0] = 0.0
        self._weights = np.zeros(x.shape[1])
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(-np.clip(x @ self._weights, -30, 30)))
            gradient = x.T @ (p - labels) + penalty * self._weights
            bend = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
            step = np.linalg.solve(bend, gradient)
            self._weights = self._weights - step
            if float(np.abs(step).max()) < 1e-8:
                break

    def __call__(self, rows: Array) -> Array:
        found: Array = self._design(rows) @ self._weights
        return found

    def _design(self, rows: Array) -> Array:
        import numpy as np

        scaled = (rows - self._mean) / self._spread
        return np.hstack([np.ones((len(rows), 1)), scaled])
