"""Entropy shaping: EM-INF as its authors' code has it, and the temperature that does the same.

Both work on one row, on a copy with the best score moved to 0. There H = log Z - E[x] with Z the
normaliser, and a uniform row has E[x] = 0 exactly: no rounding noise for Adam to amplify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import TYPE_CHECKING

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_FLOOR = -110.0  # e^-110 is 0 in float32: what lies here or lower has no mass and no gradient
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_COLDEST = 1e-4
_TOLERANCE_NATS = 1e-6
_MOST_ITERATIONS = 60


def entropy(logits: Tensor) -> float:
    """Return the entropy of softmax(*logits*) in nats.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; ``-inf`` contributes nothing.

    Returns:
        Nats in [0, ln V]; NaN for a row without a distribution (all ``-inf``, any NaN or inf).
    """
    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return float("nan")
    scores, probs, spare = _buffers(row, 3)
    _move_to_zero(row, best, scores)
    return _describe(scores, probs, spare)[0]


def _buffers(row: Tensor, n: int) -> tuple[Tensor, ...]:
    # One block: malloc maps and unmaps each row anew, whose page faults cost more than the sums.
    return row.new_empty((n, *row.shape)).unbind(0)


def _move_to_zero(row: Tensor, best: float, scores: Tensor) -> None:
    """Write into *scores* the row with its best score at 0 and nothing below the floor."""
    import torch

    torch.sub(row, best, out=scores).clamp_(min=_FLOOR)


def _describe(scores: Tensor, probs: Tensor, weighted: Tensor) -> tuple[float, float]:
    """Write softmax(*scores*) into *probs*; return its entropy and the mean score under it.

    *weighted* becomes their product. Pairwise sums, and a division by what the softmax really sums
    to: a dot product's error, 1e-6, becomes 1e-3 in Adam's steps for tokens next to the mean.
    """
    import torch

    torch.softmax(scores, dim=-1, out=probs)
    mass = float(probs.sum())
    mean = float(torch.mul(probs, scores, out=weighted).sum()) / mass
    # The normaliser is read off the best token: a logsumexp would be a second pass of exp.
    return float(scores.amax()) - log(float(probs.amax()) / mass) - mean, mean


def minimise_entropy(
    logits: Tensor,
    *,
    threshold: float = 0.3,
    kl_weight: float = 0.05,
    lr: float = 0.1,
    steps: int = 3,
) -> Tensor:
    r"""Sharpen a hesitant row by a few Adam steps on its scores.

    Minimises :math:`H(p) + \lambda\,\mathrm{KL}(p_0 \| p)` with :math:`p = \mathrm{softmax}(z)` by
    the closed-form gradient :math:`-p_j(z_j - E_p[z]) + \lambda (p_j - p_{0,j})`; before each step
    it ends if :math:`H < ` *threshold*. Adam: betas .9 and .999, epsilon 1e-8, fresh in every call.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; not modified.
        threshold: Entropy in nats below which nothing (more) is done.
        kl_weight: Pull back to the row as it came, without unit.
        lr: Length of a step, in nats.
        steps: Most steps.

    Returns:
        Scores, float32, same shape; ``-inf`` stays, the best token stays the best. The same object
        if no step was taken: entropy below the threshold, all mass on equal scores or on none.

    Source:
        Agarwal et al. 2025, arXiv:2505.15134, as in EM_PT ``ent_sample`` @91cda30 (the text says
        gradient descent). Ours: per row, not per batch; no autograd; no ``log(p + 1e-12)``, which
        is NaN on -inf; no clamp of probabilities before the draw.
    """
    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return logits
    scores, probs, start, first, second, spare = _buffers(row, 6)
    _move_to_zero(row, best, scores)
    adam = _Adam(first, second, spare)
    while adam.n < steps:
        nats, mean = _describe(scores, probs, spare)
        if nats < threshold or (not adam.n and mean == 0):
            break
        if not adam.n:
            start.copy_(probs)
        _to_gradient(scores, probs, start, mean, kl_weight, spare)
        adam.step_(scores, probs, lr)
    return _move_back(row, best, scores, spare) if adam.n else logits


def _to_gradient(
    scores: Tensor, probs: Tensor, start: Tensor, mean: float, kl_weight: float, spare: Tensor
) -> None:
    """Turn *probs* into the gradient of the loss at *scores*; *spare* is overwritten."""
    import torch

    torch.sub(mean + kl_weight, scores, out=spare)
    probs.mul_(spare)
    if kl_weight:
        probs.sub_(start, alpha=kl_weight)


class _Adam:
    """Adam's two running means for one row. Lives for one call.

    Attributes:
        n: Steps taken.
    """

    def __init__(self, first: Tensor, second: Tensor, spare: Tensor) -> None:
        self.n = 0
        self._first = first.zero_()
        self._second = second.zero_()
        self._spare = spare

    def step_(self, scores: Tensor, gradient: Tensor, lr: float) -> None:
        """Move *scores* one step downhill."""
        import torch

        self.n += 1
        bias1, bias2 = 1 - _BETA1**self.n, sqrt(1 - _BETA2**self.n)
        self._first.lerp_(gradient, 1 - _BETA1)
        self._second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        # The second mean's bias is taken out of the root, into the step's own factor.
        torch.sqrt(self._second, out=self._spare).add_(_EPS * bias2)
        scores.addcdiv_(self._first, self._spare, value=-lr * bias2 / bias1)


def _move_back(row: Tensor, best: float, scores: Tensor, spare: Tensor) -> Tensor:
    """Undo `_move_to_zero`; what lay below its floor returns to where it was."""
    import torch

    torch.sub(row, best + _FLOOR, out=spare).clamp_(max=0)
    return (scores + best).add_(spare)


def temperature_for_entropy(logits: Tensor, nats: float) -> float:
    r"""Return the temperature, at most 1, at which softmax(*logits* / T) has the entropy *nats*.

    Newton's method for :math:`\ln H` in :math:`\beta = 1/T`, where
    :math:`d \ln H / d\beta = -\beta\,\mathrm{Var}_{p_T}(z) / H`: nearly a straight line, so that
    five evaluations do. A bracket guards it; H falls strictly, so the answer is unique.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; not modified.
        nats: The entropy wanted; below 1e-6 it counts as that.

    Returns:
        T in [1e-4, 1], to 1e-6 nats; 1 if the entropy is no higher already or undefined, 1e-4 if
        ties at the top keep the entropy above *nats* at any temperature.

    Source:
        Agarwal et al. 2025, arXiv:2505.15134, the baseline; ours: solved, not bisected to 0.1 nats.
    """
    return _solve_temperature(logits, lambda own: nats)


def _solve_temperature(logits: Tensor, wanted: Callable[[float], float]) -> float:
    """Solve for the entropy that *wanted* names when it is told the row's own."""
    import torch

    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return 1.0
    scores, scaled, probs, spare = _buffers(row, 4)
    _move_to_zero(row, best, scores)
    own, variance = _spread(scores, probs, spare)
    nats = max(wanted(own), _TOLERANCE_NATS)
    if not own > nats + _TOLERANCE_NATS:
        return 1.0
    now, beta, low, high = own, 1.0, 1.0, 1 / _COLDEST
    for _ in range(_MOST_ITERATIONS):
        low, high = (beta, high) if now > nats else (low, beta)
        newton = _next_beta(beta, now, variance, nats)
        beta = newton if low < newton < high else sqrt(low * high)
        now, variance = _spread(torch.mul(scores, beta, out=scaled), probs, spare)
        if abs(now - nats) <= _TOLERANCE_NATS or high - low < 1e-9 * high:
            break
    return 1 / beta


def _next_beta(beta: float, now: float, variance: float, nats: float) -> float:
    """Take Newton's step for ln H; -1, outside any bracket, where the row is one-hot."""
    return beta * (1 + now * log(now / nats) / variance) if now > 0 < variance else -1.0


def _spread(scores: Tensor, probs: Tensor, spare: Tensor) -> tuple[float, float]:
    """Return entropy and variance of *scores* under their own softmax; the others are scratch."""
    nats, mean = _describe(scores, probs, spare)
    return nats, float(spare.mul_(scores).sum()) - mean**2


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyMinimisation(Stateless):
    """EM-INF: sharpen the positions at which the model hesitates. Stateless.

    Matters only where tokens are drawn: the best one stays. Notes ``entropy_minimised``.

    Attributes:
        threshold: See `minimise_entropy`.
        kl_weight: Likewise.
        lr: Likewise.
        steps: Likewise; 0 is neutral.
    """

    threshold: float = 0.3
    kl_weight: float = 0.05
    lr: float = 0.1
    steps: int = 3
    stage = Stage.ENTROPY

    def __post_init__(self) -> None:
        for name in ("threshold", "kl_weight", "lr", "steps"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be finite and not negative")

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
        )
        if sharper is not logits:
            here.note("entropy_minimised", 1)
        return sharper


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEntropy(Stateless):
    """Cool each position to a given entropy; positions already below it are left alone. Stateless.

    The exact, one-parameter form of what EM-INF does: a temperature step is its natural-gradient
    step. Leave the ordinary temperature at 1. Notes ``entropy_cooled`` where it acts.

    Attributes:
        nats: The entropy wanted; or else
        ratio: the share of the row's own entropy wanted, in (0, 1]; 1 is neutral.
        floor: With a ratio: never aim below this many nats.
    """

    nats: float | None = None
    ratio: float | None = None
    floor: float = 0.0
    stage = Stage.ENTROPY
    rank = 10

    def __post_init__(self) -> None:
        if (self.nats is None) == (self.ratio is None):
            raise ConfigError("a target entropy is either nats or a ratio, not both, not neither")
        if self.nats is not None and not (self.nats > 0 and not self.floor):
            raise ConfigError(f"target is {self.nats} nats; it must be above 0, without a floor")
        if self.ratio is not None and not (0 < self.ratio <= 1 and self.floor >= 0):
            raise ConfigError(
                f"ratio is {self.ratio} with floor {self.floor}; "
                "the ratio must be in (0, 1], the floor 0 nats or more"
            )

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the cooled scores; the same object where the entropy is low enough."""
        temperature = 1.0 if self.ratio == 1 else _solve_temperature(logits, self._wanted)
        if temperature == 1:
            return logits
        here.note("entropy_cooled", 1)
        return logits.float() / temperature

    def _wanted(self, own: float) -> float:
        return max(self.floor, self.ratio * own) if self.ratio is not None else self.nats or 0.0
