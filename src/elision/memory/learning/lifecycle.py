"""Which entries are shown: states of a learning entry and the rules that move it.

An entry that is rarely eligible is never demoted for it: it only goes first when room is short.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, log, log1p, sqrt
from statistics import NormalDist

from elision.errors import ConfigError
from elision.memory.learning.attribution import (
    PRIOR_SD,
    Contrast,
    Posterior,
    Score,
    contrast,
    score,
    shrink,
    spending,
    summarise,
)
from elision.memory.learning.evidence import Evidence
from elision.memory.learning.states import SHOWN, Reason, State, Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The thresholds of the lifecycle: a recipe, one for a whole scope.

    Two defaults are not the spec's. An active entry keeps the propensity of a provisional one
    until it is proven: at 0.9 an arm of 250 episodes holds 25, and an effect of +0.2 is proven
    by then in 4 of 10 entries instead of 9. And harm needs `n_harm` episodes in each arm, or
    a first unlucky withheld episode demotes; the spec names no number, its table fits 4.

    Attributes:
        provisional: Propensity of a provisional entry.
        active: Propensity of an active entry; the spec has 0.9.
        proven: Propensity of a proven entry.
        n_arm: Episodes in each arm before rewards promote or prove.
        n_harm: Episodes in each arm before rewards demote.
        p_up: Probability of helping that promotes.
        p_down: Probability of harming that demotes.
        margin: Loss of reward that still counts as no worse, for a cheaper entry.
        n_neutral: Episodes in each arm before an entry is called neutral.
        neutral: Contrast of the rewards below which it does nothing. It is asked after each
            episode, so of entries worth +0.1 that save no tokens a quarter go by it too.
        horizon: Episodes at the provisional propensity that the proof is planned for.
        error: Share of effectless entries that may be proven by the horizon.
        error_later: The same, at any later time.
        unchanged_days: Days after which a demoted entry retires.
        unchanged_episodes: Episodes of its scope after which it retires.
    """

    provisional: float = 0.7
    active: float = 0.7
    proven: float = 0.9
    n_arm: int = 8
    n_harm: int = 8
    p_up: float = 0.8
    p_down: float = 0.9
    margin: float = 0.02
    n_neutral: int = 30
    neutral: float = 0.01
    horizon: int = 250
    error: float = 0.045
    error_later: float = 0.005
    unchanged_days: float = 30.0
    unchanged_episodes: int = 200

    def __post_init__(self) -> None:
        shares = (self.provisional, self.active, self.proven, self.p_up, self.p_down)
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"{shares} are not all probabilities between 0 and 1")
        if not (0 < self.error < 1 and 0 < self.error_later < 1):
            raise ConfigError(f"error is {self.error} and {self.error_later}; both lie in (0, 1)")
        if min(self.n_arm, self.n_harm, self.n_neutral, self.horizon) < 1:
            raise ConfigError("n_arm, n_harm, n_neutral and horizon count episodes, at least one")

    def propensity(self, state: State) -> float:
        """Return the probability with which an entry in *state* is applied; 0 if never shown."""
        match state:
            case State.PROVISIONAL:
                return self.provisional
            case State.ACTIVE:
                return self.active
            case State.PROVEN:
                return self.proven
            case _:
                return 0.0


def rest(state: State, *, days: float, episodes: int, policy: Policy) -> Transition | None:
    """Retire a demoted entry that nothing happened to for long enough; None if it may stay.

    Args:
        state: The entry's.
        days: Since it was demoted or last changed.
        episodes: Of its scope, since then.
        policy: The thresholds.
    """
    late = days >= policy.unchanged_days or episodes >= policy.unchanged_episodes
    if state is State.DEMOTED and late:
        return Transition(state, State.RETIRED, Reason.UNCHANGED)
    return None


def step(state: State, evidence: Evidence, *, policy: Policy) -> Transition | None:
    """Return the move that *evidence* asks for, or None to stay.

    At most one move: an entry whose evidence carries it further moves again when asked again.
    Where nothing is ever withheld, nothing is measured and nothing moves.
    """
    seen = contrast(evidence) if state in SHOWN else None
    if seen is None:
        return None
    belief = shrink(seen)
    reason = _fault(evidence, seen, belief, policy)
    target = State.DEMOTED
    if reason is None and state is State.PROVISIONAL:
        reason, target = _merit(evidence, belief, policy), State.ACTIVE
    elif reason is None and state is State.ACTIVE and proves(evidence, policy=policy):
        reason, target = Reason.PROVEN, State.PROVEN
    return None if reason is None else Transition(state, target, reason, summarise(evidence))


def _fault(evidence: Evidence, seen: Contrast, belief: Posterior, policy: Policy) -> Reason | None:
    if evidence.n_least >= policy.n_harm and belief.p_down >= policy.p_down:
        return Reason.HARMS
    if evidence.n_least < policy.n_neutral or abs(seen.delta) >= policy.neutral:
        return None
    tokens = spending(evidence, "tokens")
    return None if tokens is None or tokens.delta < 0 else Reason.NEUTRAL


def _merit(evidence: Evidence, belief: Posterior, policy: Policy) -> Reason | None:
    if evidence.n_least < policy.n_arm:
        return None
    if belief.p_up >= policy.p_up:
        return Reason.HELPS
    if belief.above(-policy.margin) < policy.p_up:
        return None
    cost = spending(evidence, "cost")
    return Reason.CHEAPER if cost is not None and cost.interval[1] < 0 else None


def proves(evidence: Evidence, *, policy: Policy) -> bool:
    r"""Return whether *evidence* shows an effect above nought, however often it is asked.

    Promotion at ``P_up >= 0.8`` is asked after each episode, and so lets nearly half of the
    effectless entries through sooner or later. Here looking again costs nothing:

    * up to the horizon, :math:`z\sqrt{V} \ge c` with :math:`2(1-\Phi(c))` the error and
      :math:`V` the share of the planned information :math:`\sum p(1-p)` assigned so far;
    * at any time, a Bayes factor of at least 1 / `Policy.error_later` against no effect, under
      the positive half of the prior, :math:`\frac{2}{\sqrt{1+\tau^2 I}}
      \exp(\tfrac12 k z^2)\,\Phi(z\sqrt k)` with :math:`k = \tau^2 I/(1+\tau^2 I)`.

    The Bayes factor alone would do for the error, but proves +0.2 by 250 episodes in 7 entries
    of 10; the boundary alone could never prove anything later.

    Source:
        O'Brien and Fleming 1979, Biometrics 35, 549-556 (the boundary, here at every look, its
        level by the reflection principle); Robbins 1970, Ann. Math. Statist. 41, 1397-1409 (the
        mixture). Our own: the two with one error shared out, and assigned information as time.
    """
    tested = score(evidence)
    if tested is None or evidence.n_least < policy.n_arm or tested.z <= 0:
        return False
    planned = policy.horizon * policy.provisional * (1 - policy.provisional)
    bound = NormalDist().inv_cdf(1 - policy.error / 2)
    # Sums of p (1 - p) round: the episode at the horizon itself still counts.
    early = evidence.assigned <= planned * (1 + 1e-9)
    if early and tested.z * sqrt(evidence.assigned / planned) >= bound:
        return True
    return _log_bayes_factor(tested) >= -log(policy.error_later)


def _log_bayes_factor(tested: Score) -> float:
    spread = PRIOR_SD * PRIOR_SD * tested.information
    keep = spread / (1 + spread)
    tail = 0.5 * erfc(-tested.z * sqrt(keep / 2))
    return log(2) - log1p(spread) / 2 + keep * tested.z * tested.z / 2 + log(tail)
