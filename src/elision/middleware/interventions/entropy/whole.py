"""EM-INF over every score of many rows, on any device, without waiting for it in between."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from elision.middleware.interventions.entropy.minimisation import (
    BETA1,
    BETA2,
    EPS,
    EntropyMinimisation,
)
from elision.middleware.interventions.entropy.row import FLOOR

if TYPE_CHECKING:
    from torch import Tensor


def minimised(rows: Tensor, recipe: EntropyMinimisation) -> tuple[Tensor, Tensor]:
    """Sharpen the hesitant ones of *rows*, each as `minimise_entropy` does one, up to rounding.

    Args:
        rows: Scores, float32, shape ``(B, V)``; not modified.
        recipe: What is done to them.

    Returns:
        The rows, those that are not hesitant as they came; and which are, bool, shape ``(B,)``.
    """
    best = rows.amax(-1, keepdim=True)
    scores = (rows - best).clamp_(min=FLOOR)
    start = probs = scores.softmax(-1)
    nats, mean = _described(scores, probs)
    hesitant = going = best.isfinite() & (nats > recipe.threshold) & (mean != 0)
    rule = _Rule(recipe)
    for n in range(1, recipe.steps + 1):
        if n > 1:
            probs = scores.softmax(-1)
            nats, mean = _described(scores, probs)
            going = going & (nats > recipe.threshold)
        gradient = (mean + recipe.kl_weight - scores).mul_(probs)
        gradient.sub_(start, alpha=recipe.kl_weight)
        scores = (scores - rule.step(gradient)).where(going, scores)
    below = (rows - (best + FLOOR)).clamp_(max=0)
    return scores.add_(best).add_(below).where(hesitant, rows), hesitant[:, 0]


def _described(scores: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return entropy and mean score of each row, shape ``(B, 1)``; see `describe`."""
    mass = probs.sum(-1, keepdim=True)
    mean = (probs * scores).sum(-1, keepdim=True) / mass
    top = scores.amax(-1, keepdim=True)
    return top - (probs.amax(-1, keepdim=True) / mass).log() - mean, mean


class _Rule:
    """What a gradient makes of a score: Adam's or the plain rule. Lives for one call."""

    def __init__(self, recipe: EntropyMinimisation) -> None:
        self._recipe = recipe
        self._n = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def step(self, gradient: Tensor) -> Tensor:
        """Return what is to be subtracted; *gradient* is overwritten."""
        if self._recipe.method == "gd":
            return gradient.mul_(self._recipe.lr)
        self._n += 1
        if self._first is None or self._second is None:
            self._first, self._second = gradient * (1 - BETA1), gradient.square() * (1 - BETA2)
        else:
            self._first.lerp_(gradient, 1 - BETA1)
            self._second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        bias1, bias2 = 1 - BETA1**self._n, sqrt(1 - BETA2**self._n)
        root = self._second.sqrt().add_(EPS * bias2)
        return (self._first / root).mul_(self._recipe.lr * bias2 / bias1)
