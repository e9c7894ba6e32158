"""Temperature: one factor on every score."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_COLD = 1e-3
_COLDEST = 1e-30
_LOWEST = -3.4028234663852886e38


def scale(logits: Tensor, temperature: float) -> Tensor:
    r"""Divide the scores by a temperature.

    Computes :math:`z / T`; below 0.001, where that could overflow, :math:`(z - \max z) / T`, which
    has the same softmax.

    Args:
        logits: Scores of one row, shape ``(V,)``; not modified.
        temperature: Above 0; 1 gives back the same object. Below 1e-30 it counts as 1e-30.

    Returns:
        Scores of the same shape and dtype; ``-inf`` stays ``-inf``, the order is kept.

    Source:
        ``TemperatureLogitsWarper`` of transformers 5.23; our own addition: the shift for cold rows.
    """
    if temperature == 1:
        return logits
    if temperature >= _COLD:
        return logits / temperature
    # A row without any token would give nan: -inf - -inf.
    best = logits.amax().float().clamp_min(_LOWEST)
    return ((logits.float() - best) / max(temperature, _COLDEST)).to(logits.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature(Stateless):
    """Flatten (above 1) or sharpen (below 1) the distribution. Stateless.

    Attributes:
        value: Divides the scores, above 0. Greedy decoding is the draw's business, not a
            temperature of 0.
    """

    value: float
    stage = Stage.TEMPERATURE

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value > 0):
            raise ConfigError(
                f"temperature is {self.value}; it must be above 0 (0 means the greedy draw)"
            )

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scaled scores; the same object at temperature 1."""
        return scale(logits, self.value)
