"""The thresholds of the semantic layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from elision.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticPolicy:
    """When words and sentences say too much. Cosines are those of the tenant's encoder.

    Attributes:
        word: From this cosine to an entity word on, a word must not stand.
        soft: From this one on, the token that began it loses ``kappa * (cosine - soft)`` nats.
        kappa: Nats per unit of cosine.
        sentence: From this cosine to an answer on, a sentence must not stand.
        near: From this one on, a number, date or short answer in common decides.
        retries: Most times that one sentence is tried anew.
        leak: Probability of masked tokens from which on the model is taken to be telling.
        opens: A suspect whose score is below this is only watched though another's opens the gate;
            the gate's own upper threshold.
        timeout_s: Longest wait for the encoder, in seconds; then the answer ends in an error.

    Source:
        GUARD (arXiv 2505.13312); thresholds measured on TOFU with all-MiniLM-L6-v2. `near` and
        `opens` are ours.
    """

    word: float = 0.70
    soft: float = 0.50
    kappa: float = 10.0
    sentence: float = 0.80
    near: float = 0.55
    retries: int = 2
    leak: float = 0.5
    opens: float = 0.75
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("word", "soft", "sentence", "near", "leak"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in (0, 1]")
        if self.soft > self.word or self.retries < 0 or self.timeout_s <= 0:
            raise ConfigError("soft exceeds word, retries is negative or timeout_s is not positive")
        if not (self.kappa >= 0 and isfinite(self.kappa)):
            raise ConfigError(f"kappa is {self.kappa} nats; it must be finite and >= 0")
