"""Which lane a task takes, told from how similar tasks went. Pure: no model, no store, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import exp, log
from typing import TYPE_CHECKING, Final

from elision.agents.atlas.beta import quantile
from elision.agents.atlas.lanes import (
    LANES,
    Belief,
    Decision,
    Lane,
    Probed,
    ProbeState,
    Row,
    Source,
)

if TYPE_CHECKING:
    from elision.agents.atlas.config import RouterConfig, Thresholds

_SURE: Final = 0.99
"""How far a probe is believed: no odds beyond 99 to 1."""
_SHOWN: Final = 8
"""Past episodes whose figures a decision keeps."""


class Router:
    r"""Chooses lanes from past episodes.

    An episode of similarity :math:`s` and age :math:`t` weighs
    :math:`w = \max(0, (s - \tau) / (1 - \tau))^2 \, 2^{-t / h}`. A reward :math:`r` at a lane with
    help factor :math:`f` adds :math:`w f r` to the successes and :math:`w (1 - f r)` to the
    failures of a Beta prior; its lower quantile is the confidence.

    Source:
        atlas_memory.md 2.4. Changed: a reward that took a retry counts 0, because the first
        attempt had failed; little total weight counts as knowing nothing, because Kish's number is
        the same for 32 hardly related successes as for 32 of the very same task, and their
        posterior is the prior, which would escalate; 64 episodes are asked, for 32 flawless
        ones at ``paired`` give .84, and ``auto`` begins at .85.
    """

    def __init__(self, config: RouterConfig) -> None:
        self.config = config

    def choose(
        self,
        past: Sequence[Row],
        *,
        forced: Lane | None = None,
        tags: Collection[str] = (),
        noise: float | None = None,
        probed: Probed | None = None,
        probe: ProbeState = "off",
        costs: Mapping[Lane, float] | None = None,
    ) -> Decision:
        """Return the lane for a task.

        Args:
            past: Similar episodes with known rewards.
            forced: Taken whatever the past says.
            tags: The task's; some ask for supervision.
            noise: A number drawn from 0 to 1, below ``explore`` one lane lower is taken; None
                never explores: for risky tasks, and where nothing is learned from it.
            probed: What a model said, if one was asked.
            probe: What became of asking, for the record.
            costs: Mean cost of an episode at each lane, where known; for ``success_value``.
        """
        belief = self.belief(past)
        kept = sorted(past, key=lambda row: -row.similarity)[:_SHOWN]
        decision = Decision(
            lane=self.config.cold_start_lane,
            n_eff=belief.n_eff,
            weight=belief.weight,
            probe=probe,
            neighbours=tuple((round(row.similarity, 4), row.reward) for row in kept),
        )
        if forced is not None:
            known = belief.confidence if self.knows(belief) else None
            return replace(decision, lane=forced, confidence=known, source="forced")
        judged = self._judged(decision, belief, past, probed, costs or {})
        least = self._least(tags)
        return self._explored(_bounded(judged, least, self.config.most), least, noise)

    def belief(self, past: Sequence[Row]) -> Belief:
        """Return the posterior of the student's doing without help; see `Router`."""
        weights = [self._weight(row) for row in past]
        gains = [self._gain(row) for row in past]
        total = sum(weights)
        won = sum(w * gain for w, gain in zip(weights, gains, strict=True))
        a, b = self.config.prior + won, self.config.prior + max(0.0, total - won)
        squares = sum(w * w for w in weights)
        n_eff = total * total / squares if squares else 0.0
        return Belief(a, b, n_eff, total, quantile(self.config.quantile, a, b))

    def knows(self, belief: Belief) -> bool:
        """Return whether the past says enough to be followed."""
        least = (self.config.least_n_eff, self.config.least_weight)
        # Rounding: three episodes of the same weight have an n_eff a bit below 3.
        return belief.n_eff >= least[0] - 1e-9 and belief.weight >= least[1] - 1e-9

    def _weight(self, row: Row) -> float:
        near = max(0.0, (row.similarity - self.config.tau) / (1 - self.config.tau))
        return float(
            min(near, 1.0) ** 2 * 2 ** (-max(0.0, row.age_days) / self.config.half_life_days)
        )

    def _gain(self, row: Row) -> float:
        return 0.0 if row.retried else self.config.help.at(Lane(row.lane)) * row.reward

    def _judged(
        self,
        decision: Decision,
        belief: Belief,
        past: Sequence[Row],
        probed: Probed | None,
        costs: Mapping[Lane, float],
    ) -> Decision:
        if not self.knows(belief):
            if probed is None:
                return decision
            return replace(decision, lane=probed.lane, confidence=probed.confidence, source="probe")
        confidence = belief.confidence
        if probed is not None:
            confidence = _combined(confidence, probed.confidence, self.config.probe_weight)
        lane, source = _lane(confidence, self.config.thresholds), _asked(probed)
        if (cheapest := self._cheapest(past, costs)) is not None:
            lane, source = cheapest, "cost"
        return replace(decision, lane=lane, confidence=confidence, source=source)

    def _cheapest(self, past: Sequence[Row], costs: Mapping[Lane, float]) -> Lane | None:
        """Return the lane of least expected loss; of two alike the closer one."""
        value = self.config.success_value
        seen = {lane for lane in LANES if lane in costs and any(r.lane == lane for r in past)}
        if value is None or not seen:
            return None
        losses = {lane: costs[lane] + value * (1 - self._success(past, lane)) for lane in seen}
        return min(seen, key=lambda lane: (losses[lane], -lane.rank))

    def _success(self, past: Sequence[Row], lane: Lane) -> float:
        """Return the posterior mean of the reward at *lane*, help and retries included."""
        rows = [(self._weight(row), row.reward) for row in past if row.lane == lane]
        won, total = sum(w * r for w, r in rows), sum(w for w, _ in rows)
        return (self.config.prior + won) / (2 * self.config.prior + total)

    def _least(self, tags: Collection[str]) -> Lane:
        asked = [lane for tag, lane in self.config.least.items() if tag in tags]
        return max(asked, key=lambda lane: lane.rank, default=Lane.AUTO)

    def _explored(self, decision: Decision, least: Lane, noise: float | None) -> Decision:
        share, lower = self.config.explore, decision.lane.looser
        if noise is None or share == 0 or lower is decision.lane or lower.rank < least.rank:
            return decision
        if noise < share:
            return replace(decision, lane=lower, source="explore", propensity=share)
        return replace(decision, propensity=1 - share)


def _lane(confidence: float, thresholds: Thresholds) -> Lane:
    for lane in (Lane.AUTO, Lane.PAIRED, Lane.COACH):
        if confidence >= getattr(thresholds, lane):
            return lane
    return Lane.ESCALATE


def _asked(probed: Probed | None) -> Source:
    return "history" if probed is None else "probe"


def _combined(confidence: float, probe: float, weight: float) -> float:
    """Return the probability whose odds are the product, the probe's to the power *weight*."""
    logit = _logit(confidence) + weight * _logit(probe)
    return 1 / (1 + exp(-logit))


def _logit(p: float) -> float:
    kept = min(max(p, 1 - _SURE), _SURE)
    return log(kept / (1 - kept))


def _bounded(decision: Decision, least: Lane, most: Lane) -> Decision:
    """Return the decision within its bounds; where they cross, supervision wins."""
    lane = min(decision.lane, most, key=lambda one: one.rank)
    lane = max(lane, least, key=lambda one: one.rank)
    return decision if lane is decision.lane else replace(decision, lane=lane, source="override")
