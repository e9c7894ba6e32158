"""EM-INF: sharpen a hesitant row by descending its entropy, without gradients through the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError
from elision.middleware.interventions.entropy.row import (
    buffers,
    describe,
    move_back,
    move_to_zero,
)

if TYPE_CHECKING:
    from torch import Tensor

Method: TypeAlias = Literal["adam", "gd"]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Adam's, as everywhere."""
_MOST = {"threshold": float("inf"), "kl_weight": 100, "lr": 100, "steps": 1000}


def minimise_entropy(
    logits: Tensor,
    *,
    threshold: float = 0.3,
    kl_weight: float = 0.05,
    lr: float = 0.1,
    steps: int = 3,
    method: Method = "adam",
) -> Tensor:
    r"""Sharpen a hesitant row by a few steps of descent on its scores.

    Minimises :math:`H(p) + \lambda\,\mathrm{KL}(p_0 \| p)` with :math:`p = \mathrm{softmax}(z)` by
    the closed-form gradient :math:`-p_j(z_j - E_p[z]) + \lambda (p_j - p_{0,j})`; before each step
    it ends if :math:`H \le` *threshold*, so the last step may land below. Plain descent without
    :math:`\lambda` gives each token its own temperature: :math:`z_j` moves away from
    :math:`E_p[z]` by the factor :math:`1 + \eta\,p_j`.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; not modified.
        threshold: Entropy in nats below which nothing (more) is done; the paper's delta.
        kl_weight: Pull back to the row as it came, without unit.
        lr: Adam: length of a step, in nats. Gradient descent: eta, without unit.
        steps: Most steps.
        method: ``adam`` (betas .9 and .999, epsilon 1e-8, fresh in every call) as in the authors'
            code, or ``gd``, plain gradient descent, as in their text.

    Returns:
        Scores, float32, same shape; ``-inf`` stays, the best token stays the best. The same object
        if no step was taken: entropy below the threshold, all mass on equal scores or on none.

    Source:
        Agarwal et al. 2025, arXiv:2505.15134, eq. 5, and EM_PT ``ent_sample`` @91cda30. Ours: per
        row, not per batch; no autograd; no ``log(p + 1e-12)``, which is NaN on -inf; no clamp of
        probabilities before the draw.
    """
    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return logits
    scores, probs, start, spare, *means = buffers(row, 6 if method == "adam" else 4)
    move_to_zero(row, best, scores)
    descent: _Descent = _Adam(means[0], means[1], spare) if means else _GradientDescent()
    while descent.n < steps:
        nats, mean = describe(scores, probs, spare)
        if nats <= threshold or (not descent.n and mean == 0):
            break
        if not descent.n:
            start.copy_(probs)
        to_gradient(scores, probs, start, mean, kl_weight, spare)
        descent.step_(scores, probs, lr)
    return move_back(row, best, scores, spare) if descent.n else logits


def to_gradient(
    scores: Tensor, probs: Tensor, start: Tensor, mean: float, kl_weight: float, spare: Tensor
) -> None:
    """Turn *probs* into the gradient of the loss at *scores*; *spare* is overwritten.

    Args:
        scores: The row, shape ``(V,)``.
        probs: Its softmax.
        start: The probabilities that *kl_weight* pulls back to.
        mean: The mean score under *probs*.
        kl_weight: See `minimise_entropy`.
        spare: Scratch.
    """
    import torch

    torch.sub(mean + kl_weight, scores, out=spare)
    probs.mul_(spare)
    if kl_weight:
        probs.sub_(start, alpha=kl_weight)


class _Descent(Protocol):
    """A rule that turns a gradient into a step. Lives for one call.

    Attributes:
        n: Steps taken.
    """

    n: int

    def step_(self, scores: Tensor, gradient: Tensor, lr: float) -> None:
        """Move *scores* one step downhill."""
        ...


class _GradientDescent:
    """The plain rule."""

    def __init__(self) -> None:
        self.n = 0

    def step_(self, scores: Tensor, gradient: Tensor, lr: float) -> None:
        self.n += 1
        scores.sub_(gradient, alpha=lr)


class _Adam:
    """Adam's two running means for one row."""

    def __init__(self, first: Tensor, second: Tensor, spare: Tensor) -> None:
        self.n = 0
        self._first = first.zero_()
        self._second = second.zero_()
        self._spare = spare

    def step_(self, scores: Tensor, gradient: Tensor, lr: float) -> None:
        import torch

        self.n += 1
        bias1, bias2 = 1 - BETA1**self.n, sqrt(1 - BETA2**self.n)
        self._first.lerp_(gradient, 1 - BETA1)
        self._second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        # The second mean's bias is taken out of the root, into the step's own factor.
        torch.sqrt(self._second, out=self._spare).add_(EPS * bias2)
        scores.addcdiv_(self._first, self._spare, value=-lr * bias2 / bias1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyMinimisation(Stateless):
    """EM-INF: sharpen the positions at which the model hesitates. Stateless.

    Matters only where tokens are drawn: the best one stays. Notes ``entropy_minimised``. The
    settings that were published have names: see `EM_INF`.

    Attributes:
        threshold: See `minimise_entropy`.
        kl_weight: Likewise.
        lr: Likewise.
        steps: Likewise; 0 is neutral.
        method: Likewise.
        first: Whether it acts where the authors have it, before biases, penalties and masks. It
            then spends its steps on tokens that may be forbidden behind it; for reproductions.
    """

    threshold: float = 0.3
    kl_weight: float = 0.05
    lr: float = 0.1
    steps: int = 3
    method: Method = "adam"
    first: bool = False
    rank = 90

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not (isfinite(value) and 0 <= value <= most):
                raise ConfigError(f"{name} is {value}; it must be from 0 to {most} and finite")
        if self.method not in get_args(Method):
            raise ConfigError(f"method is {self.method!r}; it must be adam or gd")

    @property
    def stage(self) -> Stage:
        """Entropy shaping; behind the mixers where it comes first."""
        return Stage.MIXER if self.first else Stage.ENTROPY

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the sharpened scores; the same object below the threshold."""
        if not self.lr:
            return logits
        sharper = minimise_entropy(
            logits,
            threshold=self.threshold,
            kl_weight=self.kl_weight,
            lr=self.lr,
            steps=self.steps,
            method=self.method,
        )
        if sharper is not logits:
            here.note("entropy_minimised", 1)
        return sharper
