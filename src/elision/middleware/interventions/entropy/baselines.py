"""Adaptive temperature as its authors have it, to reproduce their figures; see `TargetEntropy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError
from elision.middleware.interventions.entropy.row import buffers, describe, move_to_zero

if TYPE_CHECKING:
    from torch import Tensor

_TOLERANCE_NATS = 0.1
_COLDEST, _WARMEST = 0.01, 1.0
_MOST_PROBES = 100
_N_STEPS = 10


def bisected_temperature(logits: Tensor, *, ratio: float, threshold: float) -> float:
    r"""Return the temperature that the published bisection finds.

    Looks in [0.01, 1] for :math:`H(\mathrm{softmax}(z / T)) = \max(\theta, \alpha H(p))` and stops
    as soon as it is within 0.1 nats. The first probe is 0.505: whoever has few nats ends there, so
    in practice confident positions are drawn at about half the temperature.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; not modified.
        ratio: alpha, the share of the row's own entropy that is wanted.
        threshold: theta in nats; never aims below it, and leaves rows at or below it alone.

    Returns:
        T in [0.01, 1]; 1 for a row left alone, or without a distribution.

    Source:
        Agarwal et al. 2025, arXiv:2505.15134, as ``AdaptiveTemperatureProcessor`` of EM_PT
        @91cda30. Ours: no ``log(p + 1e-9)``, which at 151,936 tokens moves H by some 1e-5 nats.
    """
    nats_at = _entropy_by_temperature(logits)
    if not (own := nats_at(1.0)) > threshold:
        return 1.0
    wanted, low, high = max(threshold, ratio * own), _COLDEST, _WARMEST
    middle = high
    for _ in range(_MOST_PROBES):
        middle = (low + high) / 2
        nats = nats_at(middle)
        if abs(nats - wanted) < _TOLERANCE_NATS or not low < middle < high:
            break
        low, high = (middle, high) if nats < wanted else (low, middle)
    return middle


def stepped_temperature(logits: Tensor, *, threshold: float) -> float:
    """Return the first of 1.0, 0.9 ... 0.1 at which the entropy is below a threshold.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; not modified.
        threshold: In nats.

    Returns:
        T; 0.1 if none of them is cold enough, 1 for a row without a distribution.

    Source:
        Agarwal et al. 2025, as ``temp_decrease`` in ``min_entropy_gen.py`` of EM_PT @91cda30.
    """
    nats_at = _entropy_by_temperature(logits)
    temperatures = [n / _N_STEPS for n in range(_N_STEPS, 0, -1)]
    below = (t for t in temperatures if not nats_at(t) >= threshold)
    return next(below, temperatures[-1])


def _entropy_by_temperature(logits: Tensor) -> Callable[[float], float]:
    """Return H(softmax(z / T)) as a function of T; NaN for a row without a distribution."""
    import torch

    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return lambda temperature: float("nan")
    scores, scaled, probs, spare = buffers(row, 4)
    move_to_zero(row, best, scores)

    def nats(temperature: float) -> float:
        return describe(torch.div(scores, temperature, out=scaled), probs, spare)[0]

    return nats


def _cool(logits: Tensor, temperature: float, here: Here) -> Tensor:
    """Return the scores at *temperature*, noted; the same object at 1."""
    if temperature == 1:
        return logits
    here.note("entropy_cooled", 1)
    return logits.float() / temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveTemperature(Stateless):
    """The published adaptive temperature, its crude bisection included. Stateless.

    For reproductions: `TargetEntropy` with a ratio and a floor is the same, solved exactly. Leave
    the ordinary temperature at 1. Notes ``entropy_cooled`` where it acts.

    Attributes:
        ratio: See `bisected_temperature`. The authors' script has .85, their sweep .1 to .6.
        threshold: Likewise, in nats.
        first: Whether it acts before biases, penalties and masks, as the authors have it.
    """

    ratio: float = 0.85
    threshold: float = 1e-5
    first: bool = False
    rank = 92

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"ratio is {self.ratio}; it must be in (0, 1]")
        _check_threshold(self.threshold)

    @property
    def stage(self) -> Stage:
        """Entropy shaping; behind the mixers where it comes first."""
        return Stage.MIXER if self.first else Stage.ENTROPY

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the cooled scores; the same object at and below the threshold."""
        temperature = bisected_temperature(logits, ratio=self.ratio, threshold=self.threshold)
        return _cool(logits, temperature, here)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteppedTemperature(Stateless):
    """Cool a position in steps of 0.1 until its entropy is low enough. Stateless.

    The authors' ``temp_decrease``. Leave the ordinary temperature at 1. Notes ``entropy_cooled``.

    Attributes:
        threshold: See `stepped_temperature`; in nats.
        first: Whether it acts before biases, penalties and masks, as the authors have it.
    """

    threshold: float = 0.3
    first: bool = False
    rank = 94

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)

    @property
    def stage(self) -> Stage:
        """Entropy shaping; behind the mixers where it comes first."""
        return Stage.MIXER if self.first else Stage.ENTROPY

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the cooled scores; the same object below the threshold."""
        return _cool(logits, stepped_temperature(logits, threshold=self.threshold), here)


def _check_threshold(nats: float) -> None:
    if not (isfinite(nats) and nats >= 0):
        raise ConfigError(f"threshold is {nats} nats; it must be finite and not negative")
