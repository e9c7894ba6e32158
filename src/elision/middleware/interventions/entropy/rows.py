"""EM-INF over many rows at once: what one row's descent does, at a fraction of its cost.

On a CPU a row costs what its passes over the vocabulary cost, and one row's descent takes some
fifty. Here it takes a dozen. Where a row is drawn from at a low temperature, tokens far below the
best have no probability left, so only the *head* must be moved: the scores within some nats of the
best. The *tail* counts through its mass and its mean at each step. What a step does to a score
depends on that score and on sums over the row, so the tail is stood for by a few made-up tokens,
the *nodes* of a quadrature, which descend along with the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from elision.middleware.interventions.entropy.minimisation import (
    BETA1,
    BETA2,
    EPS,
    EntropyMinimisation,
    minimise_entropy,
)
from elision.middleware.interventions.entropy.split import Points, Split
from elision.middleware.interventions.entropy.whole import minimised

if TYPE_CHECKING:
    from torch import Tensor

_NARROWEST, _WIDEST = 7.5, 14.0
"""Nats from the best score to the cut: less is not accurate, more is not worth it."""
_MARGIN: Final = 3.0
"""Nats from the mean score to the cut; nearer to it, the tail moves unlike the nodes."""
_FORGOTTEN: Final = 1e-12
"""Share of the tail, at its row's temperature, that counts as none."""
_ROWS_AT_ONCE: Final = 16
"""Rows whose heads descend together."""
_DEVICE_SCORES: Final = 1 << 24
"""Scores that are sharpened at once elsewhere than on a CPU; each takes some 40 bytes meanwhile."""


def minimise_entropies_(
    logits: Tensor,
    rows: Sequence[int],
    recipe: EntropyMinimisation,
    *,
    temperature: float | None = None,
) -> tuple[int, ...]:
    r"""Sharpen the hesitant ones of some rows, in place.

    Each row becomes what `minimise_entropy` makes of it, up to rounding, whatever stands in the
    others. With a *temperature* :math:`\tau` up to some 0.35, scores more than :math:`c` nats below
    the row's best stay as they are. A step of Adam's moves no score by more than 1.05 *lr*, so with
    or without it their share at :math:`\tau` is at most
    :math:`V \exp((2.1\,\mathrm{lr}\,\mathrm{steps} - c) / \tau) \le 10^{-12}`: so :math:`c` is
    chosen. The others depend on them by mass and mean: exact at the first step; behind it by a
    quadrature, exact for 1, z, s and zs with :math:`s = \epsilon / (|g| + \epsilon)` of the first
    step, whose error moves no score by more than 1e-6 nats (measured against float64: 2e-7).

    Args:
        logits: Scores, float32, shape ``(R, V)``, any device.
        rows: Which; each once.
        recipe: What is done to them.
        temperature: What the rows are divided by before a token is drawn, where nothing else is
            made of them, and no probability is told; the highest of theirs. None: not known.

    Returns:
        The rows that were sharpened, in their order.
    """
    if not recipe.lr or not recipe.steps or not rows:
        return ()
    if logits.device.type != "cpu":
        return _on_device(logits, rows, recipe)
    cut = _cut(logits, recipe, temperature)
    if cut is None:
        return tuple(row for row in rows if _alone(logits, row, recipe))
    parts = [rows[n : n + _ROWS_AT_ONCE] for n in range(0, len(rows), _ROWS_AT_ONCE)]
    with np.errstate(all="ignore"):  # what comes of rows without a distribution is left out
        return tuple(row for part in parts for row in _heads_sharpened(logits, part, recipe, cut))


def _cut(logits: Tensor, recipe: EntropyMinimisation, temperature: float | None) -> float | None:
    """Return how far below the best score the tail begins; None if every score is to be moved."""
    gentle = recipe.lr <= 0.2 and recipe.steps <= 5 and recipe.kl_weight <= 0.2
    if temperature is None or recipe.method != "adam" or not gentle:
        return None
    if logits.stride(1) != 1:
        return None
    nats = log(logits.shape[1]) - log(_FORGOTTEN)
    cut = 2.1 * recipe.lr * recipe.steps + temperature * nats
    return max(cut, _NARROWEST) if cut <= _WIDEST else None


def _on_device(logits: Tensor, rows: Sequence[int], recipe: EntropyMinimisation) -> tuple[int, ...]:
    """Sharpen every score, many rows in one go: there passes are cheap, and waiting is not."""
    import torch

    found: list[Tensor] = []
    at_once = max(1, _DEVICE_SCORES // logits.shape[1])
    for lines in torch.split(torch.tensor(rows, device=logits.device), at_once):
        sharper, hesitant = minimised(logits[lines], recipe)
        logits[lines] = sharper
        found.append(hesitant)
    return tuple(row for row, acted in zip(rows, torch.cat(found).tolist(), strict=True) if acted)


def _alone(logits: Tensor, row: int, recipe: EntropyMinimisation) -> bool:
    """Sharpen one row, every score of it, in place; return whether it was hesitant."""
    here = logits[row]
    sharper = minimise_entropy(
        here,
        threshold=recipe.threshold,
        kl_weight=recipe.kl_weight,
        lr=recipe.lr,
        steps=recipe.steps,
        method=recipe.method,
    )
    if sharper is here:
        return False
    here.copy_(sharper)
    return True


def _heads_sharpened(
    logits: Tensor, rows: Sequence[int], recipe: EntropyMinimisation, cut: float
) -> list[int]:
    """Sharpen the heads of a few rows; whole rows where the head is not all that matters."""
    split = Split(logits, rows, cut)
    hesitant = split.is_row & (split.nats > recipe.threshold) & (split.mean != 0)
    fit = hesitant & (split.mean >= _MARGIN - cut)
    chosen = np.flatnonzero(fit)
    if len(chosen):
        points = split.points(chosen)
        _descend_(points, recipe)
        split.write(logits, points)
    others = [rows[n] for n in np.flatnonzero(hesitant & ~fit).tolist()]
    done = {*(rows[n] for n in chosen.tolist()), *_others_sharpened(logits, others, recipe, cut)}
    return [row for row in rows if row in done]


def _others_sharpened(
    logits: Tensor, rows: Sequence[int], recipe: EntropyMinimisation, cut: float
) -> list[int]:
    """Sharpen rows whose mean lies too near to *cut*."""
    if rows and cut < _WIDEST:
        return _heads_sharpened(logits, rows, recipe, min(cut + 4.0, _WIDEST))
    return [row for row in rows if _alone(logits, row, recipe)]


def _descend_(points: Points, recipe: EntropyMinimisation) -> None:
    """Move the points as `minimise_entropy` moves the scores of their rows."""
    y, owner = points.scores, points.owner
    first, second = np.zeros_like(y), np.zeros_like(y)
    start = y
    going = np.ones(points.n_rows, dtype=bool)
    for n in range(1, recipe.steps + 1):
        weights = np.exp(y)
        total = points.sums(weights * points.n_like)
        probs = weights / total[owner]
        mean = points.sums(probs * points.n_like * y)
        going &= np.log(total) - mean > recipe.threshold
        if n > 1 and not going.any():
            break
        start = probs if n == 1 else start
        gradient = probs * (mean[owner] + recipe.kl_weight - y) - recipe.kl_weight * start
        first += (1 - BETA1) * (gradient - first)
        second += (1 - BETA2) * (gradient * gradient - second)
        bias1, bias2 = 1 - BETA1**n, sqrt(1 - BETA2**n)
        lr = np.where(going | (n == 1), recipe.lr * bias2 / bias1, 0.0)
        y -= lr[owner] * first / (np.sqrt(second) + EPS * bias2)
