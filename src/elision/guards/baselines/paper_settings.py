"""The constants of guard-paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from elision.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSettings:
    """The method's constants.

    Attributes:
        width: Beams, b.
        beta: Share of a phrase's tokens from which on a candidate is dropped, in (0, 1].
        delta: Cosine of a word and a phrase from which on likewise, in (0, 1].
        tau: Probability above which the gate is open, in [0, 1].
    """

    width: int = 7
    beta: float = 1.0
    delta: float = 0.5
    tau: float = 0.5

    def __post_init__(self) -> None:
        inside = self.width >= 1 and 0 < self.beta <= 1 and 0 < self.delta <= 1
        if not (inside and 0 <= self.tau <= 1):
            raise ConfigError(
                f"width {self.width}, beta {self.beta}, delta {self.delta}, tau {self.tau}; "
                "width is at least 1, the others are shares"
            )


PRESETS: Mapping[str, PaperSettings] = MappingProxyType(
    {
        "paper-tofu": PaperSettings(delta=0.3),
        "paper-muse": PaperSettings(delta=0.7),
        "paper-hp": PaperSettings(delta=0.5),
    }
)
"""Constants by data set (guard.md 1.2 and 1.6.10)."""
