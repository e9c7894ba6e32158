"""Which episodes an entry was shown in, and what came of them: the coin and the running sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Self

from elision.errors import ConfigError


def draw(seed: int, episode: str, entry: str, propensity: float) -> bool:
    """Decide whether *entry* is applied in *episode* (True) or withheld.

    The same arguments give the same answer on every machine, so a replay is exact. Raising the
    propensity only ever turns a withheld entry into an applied one. Of two entries that
    contradict each other at most one may be shown: draw once for the pair, at 0.5.

    Args:
        seed: The store's seed.
        episode: The episode's id.
        entry: The entry's id.
        propensity: Probability of applying, 0 to 1.

    Raises:
        ConfigError: If the propensity is no probability.
    """
    if not 0 <= propensity <= 1:
        raise ConfigError(f"propensity is {propensity}; a probability lies between 0 and 1")
    parts = (str(seed), episode, entry)
    # Lengths keep ("a", "bc") apart from ("ab", "c").
    told = b"".join(b"%d:%s" % (len(b), b) for b in (part.encode() for part in parts))
    # 53 bits are a float's: 64 could round up to 1, and a propensity of 1 would withhold.
    noise = int.from_bytes(blake2b(told, digest_size=8).digest(), "big") >> 11
    return noise < propensity * 2**53


@dataclass(frozen=True, slots=True)
class Arm:
    """Running sums over the episodes in which an entry was applied, or withheld.

    Attributes:
        n: Episodes with a known reward.
        rewards: Sum of their rewards, each 0 to 1.
        rewards_sq: Sum of the squared rewards.
        tokens: Sum of their tokens, over all roles.
        tokens_sq: Sum of the squares.
        cost: Sum of their cost, in the ledger's currency.
        cost_sq: Sum of the squares.
    """

    n: int = 0
    rewards: float = 0.0
    rewards_sq: float = 0.0
    tokens: int = 0
    tokens_sq: int = 0
    cost: float = 0.0
    cost_sq: float = 0.0

    def after(self, reward: float, *, tokens: int = 0, cost: float = 0.0) -> Arm:
        """Return the arm with one more episode; one without a reward is not told at all.

        Raises:
            ConfigError: If the reward is outside 0 to 1, or tokens or cost are negative or not
                finite.
        """
        if not 0 <= reward <= 1:
            raise ConfigError(f"reward is {reward}; rewards lie between 0 and 1")
        if tokens < 0 or not 0 <= cost < inf:
            raise ConfigError(f"{tokens} tokens at {cost}; neither can be negative or endless")
        return Arm(
            self.n + 1,
            self.rewards + reward,
            self.rewards_sq + reward * reward,
            self.tokens + tokens,
            self.tokens_sq + tokens * tokens,
            self.cost + cost,
            self.cost_sq + cost * cost,
        )

    def __add__(self, other: Arm) -> Arm:
        return Arm(
            self.n + other.n,
            self.rewards + other.rewards,
            self.rewards_sq + other.rewards_sq,
            self.tokens + other.tokens,
            self.tokens_sq + other.tokens_sq,
            self.cost + other.cost,
            self.cost_sq + other.cost_sq,
        )

    @property
    def smoothed_variance(self) -> float:
        """Variance of the rewards with one reward of 0 and one of 1 added, so never nought.

        For rewards of 0 and 1 it is the spec's ``m (1 - m)`` with ``m = (k + 1) / (n + 2)``.
        """
        mean = (self.rewards + 1) / (self.n + 2)
        return (self.rewards_sq + 1) / (self.n + 2) - mean * mean


@dataclass(frozen=True, slots=True)
class Phase:
    """The two arms of an entry while its propensity was constant.

    Attributes:
        propensity: Probability of applying under which both arms were drawn.
        applied: Episodes in which the entry was shown.
        withheld: Episodes in which it was eligible and not shown.
    """

    propensity: float
    applied: Arm = field(default_factory=Arm)
    withheld: Arm = field(default_factory=Arm)

    @property
    def complete(self) -> bool:
        """Whether neither arm is empty."""
        return self.applied.n > 0 and self.withheld.n > 0

    @property
    def assigned(self) -> float:
        """Episodes times ``p (1 - p)``: the information assigned, known before any reward."""
        n = self.applied.n + self.withheld.n
        return n * self.propensity * (1 - self.propensity)

    @property
    def balance(self) -> float:
        """``n_a n_w / (n_a + n_w)``: the inverse variance of the contrast per unit variance."""
        return self.applied.n * self.withheld.n / (self.applied.n + self.withheld.n)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all episodes said about one version of an entry: one phase for each propensity.

    Episodes under different propensities are never thrown into one arm: when the base rate
    drifts, the arms of a sum would come from different times.

    Attributes:
        phases: By rising propensity.
    """

    phases: tuple[Phase, ...] = ()

    def after(
        self, propensity: float, *, applied: bool, reward: float, tokens: int = 0, cost: float = 0.0
    ) -> Self:
        """Return the evidence with one more episode.

        Args:
            propensity: The one that `draw` was called with.
            applied: What it answered.
            reward: The episode's, 0 to 1.
            tokens: The episode's, over all roles.
            cost: The episode's, over all roles.

        Raises:
            ConfigError: As `Arm.after`; or if the propensity could not have drawn this arm.
        """
        if not 0 <= propensity <= 1 or propensity == (0 if applied else 1):
            raise ConfigError(f"propensity is {propensity}; it cannot have drawn this arm")
        phases = {phase.propensity: phase for phase in self.phases}
        shown, held = Arm(), Arm()
        if propensity in phases:
            shown, held = phases[propensity].applied, phases[propensity].withheld
        if applied:
            shown = shown.after(reward, tokens=tokens, cost=cost)
        else:
            held = held.after(reward, tokens=tokens, cost=cost)
        phases[propensity] = Phase(propensity, shown, held)
        return type(self)(tuple(phases[p] for p in sorted(phases)))

    @property
    def n_least(self) -> int:
        """Episodes in the smaller arm, over all phases."""
        applied = sum(phase.applied.n for phase in self.phases)
        return min(applied, sum(phase.withheld.n for phase in self.phases))

    @property
    def assigned(self) -> float:
        """Information assigned over all phases; see `Phase.assigned`."""
        return sum(phase.assigned for phase in self.phases)

    @property
    def complete(self) -> tuple[Phase, ...]:
        """The phases in which neither arm is empty."""
        return tuple(phase for phase in self.phases if phase.complete)
