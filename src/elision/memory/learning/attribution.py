"""What a learning entry is worth: randomised withholding and the effect read off it.

Each time an entry could help, a coin decides whether it is shown. Episodes in which it was shown
and episodes in which it was withheld then differ in nothing else, so their contrast is the
entry's causal effect; a comparison with all other episodes would measure which tasks it fires on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import erfc, isfinite, sqrt
from typing import Final, Literal

from elision.errors import ConfigError
from elision.memory.learning.evidence import Arm, Evidence, Phase

PRIOR_SD: Final = 0.15
"""Standard deviation of an entry's effect on the reward before anything is known (spec 2.6)."""
Z_90: Final = 1.6448536269514722
"""Quantile of the normal distribution that leaves 5 % above it."""

Measure = Literal["tokens", "cost"]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean applied less mean withheld.

    Attributes:
        delta: The difference, in the unit of what was measured.
        variance: Its sampling variance.
    """

    delta: float
    variance: float

    @property
    def interval(self) -> tuple[float, float]:
        """The plain 90 % interval, without the prior."""
        half = Z_90 * sqrt(self.variance)
        return self.delta - half, self.delta + half


@dataclass(frozen=True, slots=True)
class Posterior:
    """A normal belief about an effect.

    Attributes:
        mean: Of the effect.
        variance: Of the effect; above nought.
    """

    mean: float
    variance: float

    def above(self, effect: float) -> float:
        """Return the probability that the true effect is larger than *effect*."""
        return 0.5 * erfc((effect - self.mean) / sqrt(2 * self.variance))

    @property
    def p_up(self) -> float:
        """Probability that the entry helps."""
        return self.above(0.0)

    @property
    def p_down(self) -> float:
        """Probability that the entry harms: 1 less `p_up`, without its rounding."""
        return 0.5 * erfc(self.mean / sqrt(2 * self.variance))


@dataclass(frozen=True, slots=True)
class Score:
    """The contrast of the rewards, standardised as if the entry had no effect.

    Attributes:
        z: Standard normal where there is no effect.
        information: Inverse variance of the contrast it was made from.
    """

    z: float
    information: float


def contrast(evidence: Evidence) -> Contrast | None:
    r"""Return the effect on the reward, or None while no phase has both arms.

    Within a phase :math:`\delta = \bar y_a - \bar y_w` and :math:`s^2 = v_a/n_a + v_w/n_w` with
    smoothed arm variances; phases are combined by inverse variance.
    """
    return combine(
        Contrast(
            phase.applied.rewards / phase.applied.n - phase.withheld.rewards / phase.withheld.n,
            phase.applied.smoothed_variance / phase.applied.n
            + phase.withheld.smoothed_variance / phase.withheld.n,
        )
        for phase in evidence.complete
    )


def combine(contrasts: Iterable[Contrast]) -> Contrast | None:
    """Return the inverse-variance mean of independent *contrasts*, or None of none.

    Args:
        contrasts: Each with a variance above nought.
    """
    found = tuple(contrasts)
    if not found:
        return None
    weight = sum(1 / one.variance for one in found)
    return Contrast(sum(one.delta / one.variance for one in found) / weight, 1 / weight)


def spending(evidence: Evidence, measure: Measure) -> Contrast | None:
    """Return the effect on tokens or cost, or None while no phase has two episodes in each arm.

    Variances are the sample's, for there is no scale to smooth them on. They may be nought, so
    phases are weighted by `Phase.balance` and not by inverse variance, which it is where the
    variance is the same everywhere.
    """
    phases = [p for p in evidence.complete if min(p.applied.n, p.withheld.n) >= 2]
    if not phases:
        return None
    total = sum(phase.balance for phase in phases)
    weights = [phase.balance / total for phase in phases]
    parts = [_spent(phase, measure) for phase in phases]
    delta = sum(w * part.delta for w, part in zip(weights, parts, strict=True))
    return Contrast(
        delta, sum(w * w * part.variance for w, part in zip(weights, parts, strict=True))
    )


def _spent(phase: Phase, measure: Measure) -> Contrast:
    arms = [(arm.n, *_sums(arm, measure)) for arm in (phase.applied, phase.withheld)]
    applied, withheld = (total / n for n, total, _ in arms)
    # Sums of squares cancel: rounding may leave a little less than nought.
    variances = (max(0.0, square - total * total / n) / (n - 1) / n for n, total, square in arms)
    return Contrast(applied - withheld, sum(variances))


def _sums(arm: Arm, measure: Measure) -> tuple[float, float]:
    return (arm.tokens, arm.tokens_sq) if measure == "tokens" else (arm.cost, arm.cost_sq)


def shrink(seen: Contrast, *, prior_sd: float = PRIOR_SD) -> Posterior:
    r"""Return what to believe after *seen*, starting from :math:`N(0, \tau^2)`.

    :math:`\mu = \delta\tau^2/(\tau^2+s^2)`, :math:`\sigma^2 = \tau^2 s^2/(\tau^2+s^2)`.

    Args:
        seen: Of the rewards; its variance is above nought.
        prior_sd: :math:`\tau`, in units of reward.

    Raises:
        ConfigError: If the prior has no width.
    """
    if not (isfinite(prior_sd) and prior_sd > 0):
        raise ConfigError(f"prior_sd is {prior_sd}; a prior has a width above nought")
    prior = prior_sd * prior_sd
    keep = prior / (prior + seen.variance)
    return Posterior(seen.delta * keep, seen.variance * keep)


def score(evidence: Evidence) -> Score | None:
    """Return the test statistic of "no effect on the reward", or None as `contrast`.

    Without an effect both arms of a phase have one variance, taken from the two together. With a
    variance for each arm, an arm that came out low by chance claims to be precise, and effects
    of nought are found 6 times in a hundred where 5 were meant (4,000 simulated entries).
    """
    nulls = combine(
        Contrast(
            phase.applied.rewards / phase.applied.n - phase.withheld.rewards / phase.withheld.n,
            (phase.applied + phase.withheld).smoothed_variance / phase.balance,
        )
        for phase in evidence.complete
    )
    if nulls is None:
        return None
    return Score(nulls.delta / sqrt(nulls.variance), 1 / nulls.variance)


@dataclass(frozen=True, slots=True)
class Effect:
    """The figures that a decision rests on; kept with it.

    Attributes:
        n_least: Episodes in the smaller arm.
        reward: Plain contrast of the rewards.
        belief: Posterior of the effect on the reward.
        score: Test statistic of no effect.
        tokens: Contrast of the tokens, or None while unknown.
        cost: Contrast of the cost, or None while unknown.
    """

    n_least: int
    reward: Contrast
    belief: Posterior
    score: Score
    tokens: Contrast | None
    cost: Contrast | None


def summarise(evidence: Evidence) -> Effect | None:
    """Return what *evidence* says, or None while it says nothing (an arm is empty)."""
    reward, tested = contrast(evidence), score(evidence)
    if reward is None or tested is None:
        return None
    tokens, cost = spending(evidence, "tokens"), spending(evidence, "cost")
    return Effect(evidence.n_least, reward, shrink(reward), tested, tokens, cost)
