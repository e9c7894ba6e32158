"""Target entropy: the temperature at which a row has the entropy wanted, solved for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import TYPE_CHECKING

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError
from elision.middleware.interventions.entropy.row import buffers, describe, move_to_zero

if TYPE_CHECKING:
    from torch import Tensor

_COLDEST = 1e-4
_TOLERANCE_NATS = 1e-6
_MOST_ITERATIONS = 60


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
    scores, scaled, probs, spare = buffers(row, 4)
    move_to_zero(row, best, scores)
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
    nats, mean = describe(scores, probs, spare)
    return nats, float(spare.mul_(scores).sum()) - mean**2


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
    rank = 100

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
