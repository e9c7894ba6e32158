"""Lanes are told from how similar tasks went: laws of the router, and quantiles against SciPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as scipy_beta

from elision.agents.atlas.beta import cdf, quantile
from elision.agents.atlas.config import RouterConfig, Thresholds
from elision.agents.atlas.lanes import LANES, Lane, Probed
from elision.agents.atlas.router import Router
from elision.errors import ConfigError


@dataclass(frozen=True)
class Past:
    similarity: float = 1.0
    reward: float = 1.0
    lane: str = "auto"
    retried: bool = False
    age_days: float = 0.0


ROUTER = Router(RouterConfig())
share = st.floats(0, 1)
rows = st.builds(
    Past,
    similarity=st.floats(-1, 1),
    reward=share,
    lane=st.sampled_from([lane.value for lane in LANES]),
    retried=st.booleans(),
    age_days=st.floats(0, 400),
)
pasts = st.lists(rows, max_size=40)
positive = st.floats(0.01, 300)


@given(st.floats(0, 1), positive, positive)
def test_the_distribution_function_is_scipys(x: float, a: float, b: float) -> None:
    assert cdf(x, a, b) == pytest.approx(scipy_beta.cdf(x, a, b), abs=1e-10)


@settings(max_examples=30)
@given(st.floats(0.01, 0.99), st.floats(0.2, 300), st.floats(0.2, 300))
def test_the_quantile_is_scipys(p: float, a: float, b: float) -> None:
    assert quantile(p, a, b) == pytest.approx(scipy_beta.ppf(p, a, b), abs=1e-9)


def test_quantiles_of_known_distributions() -> None:
    assert quantile(0.2, 1, 1) == pytest.approx(0.2)
    assert quantile(0.2, 2, 1) == pytest.approx(0.2**0.5)
    assert quantile(0.0, 3, 4) == pytest.approx(0, abs=1e-12)
    assert quantile(1.0, 3, 4) == pytest.approx(1)


@pytest.mark.parametrize("parameters", [(0.5, 0, 1), (0.5, 1, -1), (0.5, float("inf"), 1)])
def test_a_beta_without_parameters_is_refused(parameters: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        cdf(*parameters)
    with pytest.raises(ConfigError, match="probability"):
        quantile(1.5, 1, 1)


@given(pasts, st.data())
def test_a_better_reward_never_asks_for_more_supervision(
    past: list[Past], data: st.DataObject
) -> None:
    before = ROUTER.choose(past)
    better = [replace(one, reward=max(one.reward, data.draw(share))) for one in past]
    after = ROUTER.choose(better)
    assert after.lane.rank <= before.lane.rank or before.confidence is None
    assert (after.confidence is None) == (before.confidence is None)


@given(pasts)
def test_a_success_without_retry_never_asks_for_more_supervision(past: list[Past]) -> None:
    before = ROUTER.choose(past)
    after = ROUTER.choose([replace(one, retried=False) for one in past])
    assert after.lane.rank <= before.lane.rank


@given(pasts, st.integers(0, 3))
def test_a_success_at_a_looser_lane_says_more(past: list[Past], steps: int) -> None:
    before = ROUTER.choose(past)
    looser = [replace(p, lane=LANES[max(0, Lane(p.lane).rank - steps)].value) for p in past]
    assert ROUTER.choose(looser).lane.rank <= before.lane.rank


@given(pasts)
def test_one_more_flawless_episode_of_the_same_task_never_lowers_the_confidence(
    past: list[Past],
) -> None:
    before, after = ROUTER.belief(past), ROUTER.belief([*past, Past()])
    assert after.confidence >= before.confidence - 1e-12


@given(pasts, st.randoms())
def test_the_order_of_the_past_does_not_matter(past: list[Past], draw: object) -> None:
    mixed = list(past)
    draw.shuffle(mixed)  # type: ignore[attr-defined]
    one, two = ROUTER.choose(past), ROUTER.choose(mixed)
    assert one.lane is two.lane
    assert one.confidence == pytest.approx(two.confidence, abs=1e-9)


@given(pasts, st.sampled_from(LANES), st.sampled_from([None, 0.0, 0.5]))
def test_a_forced_lane_is_taken_whatever_the_past_says(
    past: list[Past], lane: Lane, noise: float | None
) -> None:
    decision = ROUTER.choose(past, forced=lane, noise=noise)
    assert (decision.lane, decision.source, decision.propensity) == (lane, "forced", 1.0)


@given(pasts, st.sampled_from(LANES), st.sampled_from(LANES), st.sampled_from([None, 0.0, 0.9]))
def test_bounds_hold_and_where_they_cross_supervision_wins(
    past: list[Past], most: Lane, least: Lane, noise: float | None
) -> None:
    router = Router(RouterConfig(most=most, least={"pay": least}))
    lane = router.choose(past, tags={"pay"}, noise=noise).lane
    assert lane.rank >= least.rank
    assert lane.rank <= max(most.rank, least.rank)


@given(pasts, st.floats(0, 0.999))
def test_exploring_takes_one_lane_less_and_says_how_likely_that_was(
    past: list[Past], noise: float
) -> None:
    plain, drawn = ROUTER.choose(past), ROUTER.choose(past, noise=noise)
    if plain.lane is Lane.AUTO:
        assert drawn == plain
    elif noise < 0.05:
        assert (drawn.lane, drawn.source) == (plain.lane.looser, "explore")
        assert drawn.propensity == 0.05
    else:
        assert (drawn.lane, drawn.source) == (plain.lane, plain.source)
        assert drawn.propensity == 0.95


def test_without_history_the_cold_lane_is_taken() -> None:
    decision = ROUTER.choose([])
    assert (decision.lane, decision.source) == (Lane.PAIRED, "no_history")
    assert decision.confidence is None
    assert ROUTER.choose([Past()] * 2).source == "no_history"
    assert ROUTER.choose([Past()] * 3).source == "history"


def test_many_hardly_related_successes_are_no_history() -> None:
    """Kish's number of 32 of them is 32, and their posterior would be the prior's: escalate."""
    far = [Past(similarity=0.4)] * 32
    assert ROUTER.belief(far).n_eff == pytest.approx(32)
    assert ROUTER.choose(far).source == "no_history"


def test_the_posterior_is_that_of_the_spec() -> None:
    past = [
        Past(similarity=1.0, reward=1.0, lane="auto"),
        Past(similarity=0.675, reward=0.5, lane="paired"),
        Past(similarity=1.0, reward=1.0, lane="coach", age_days=30),
        Past(similarity=1.0, reward=1.0, lane="escalate", retried=True),
        Past(similarity=0.2, reward=0.0),
    ]
    belief = ROUTER.belief(past)
    assert belief.weight == pytest.approx(1 + 0.25 + 0.5 + 1)
    assert belief.a == pytest.approx(0.5 + 1 + 0.25 * 0.45 + 0.5 * 0.8)
    assert belief.a + belief.b == pytest.approx(1 + belief.weight)
    assert belief.n_eff == pytest.approx(2.75**2 / (1 + 0.0625 + 0.25 + 1))


def test_all_four_lanes_are_reached_from_their_own_histories() -> None:
    reached = [
        ROUTER.choose([Past(reward=r, lane=lane)] * 20).lane
        for r, lane in ((1.0, "auto"), (0.9, "paired"), (0.7, "coach"), (0.2, "paired"))
    ]
    assert reached == list(LANES)


def test_flawless_work_climbs_from_escalate_to_auto() -> None:
    """Each lane's help factor lets the next looser one be reached: nobody is stuck."""
    lane, seen = Lane.ESCALATE, [Lane.ESCALATE]
    for _ in range(6):
        lane = ROUTER.choose([Past(lane=lane.value)] * 64).lane
        seen.append(lane)
    assert lane is Lane.AUTO
    assert all(later.rank <= earlier.rank for earlier, later in pairwise(seen))


def test_a_probe_decides_alone_without_history_and_shifts_the_odds_with_it() -> None:
    alone = ROUTER.choose([], probed=Probed(Lane.COACH, 0.5), probe="used")
    assert (alone.lane, alone.source, alone.probe) == (Lane.COACH, "probe", "used")
    past = [Past(reward=0.8, lane="auto")] * 20
    plain = ROUTER.choose(past).confidence
    assert plain is not None
    odds = plain / (1 - plain) * (0.9 / 0.1) ** 0.5
    both = ROUTER.choose(past, probed=Probed(Lane.AUTO, 0.9), probe="used")
    assert both.confidence == pytest.approx(odds / (1 + odds))
    assert both.source == "probe"


@given(pasts, share, share)
def test_a_more_confident_probe_never_asks_for_more_supervision(
    past: list[Past], one: float, two: float
) -> None:
    low, high = (Probed(Lane.COACH, p) for p in sorted((one, two)))
    assert ROUTER.choose(past, probed=high).lane.rank <= ROUTER.choose(past, probed=low).lane.rank


def test_a_failed_probe_is_on_record_and_decides_nothing() -> None:
    decision = ROUTER.choose([], probe="failed")
    assert (decision.lane, decision.source, decision.probe) == (Lane.PAIRED, "no_history", "failed")
    assert decision.told()["probe"] == "failed"


def test_cost_decides_where_a_success_has_a_price() -> None:
    past = [Past(lane="auto", reward=0.6)] * 10 + [Past(lane="coach", reward=1.0)] * 10
    costs = {Lane.AUTO: 1.0, Lane.COACH: 3.0}
    cheap = Router(RouterConfig(success_value=1.0)).choose(past, costs=costs)
    dear = Router(RouterConfig(success_value=100.0)).choose(past, costs=costs)
    assert (cheap.lane, cheap.source) == (Lane.AUTO, "cost")
    assert (dear.lane, dear.source) == (Lane.COACH, "cost")


def test_of_two_lanes_of_equal_loss_the_closer_is_taken() -> None:
    past = [Past(lane=lane) for lane in ("auto", "paired") for _ in range(5)]
    costs = {Lane.AUTO: 1.0, Lane.PAIRED: 1.0}
    assert Router(RouterConfig(success_value=1.0)).choose(past, costs=costs).lane is Lane.PAIRED


def test_a_decision_is_figures_and_codes() -> None:
    told = ROUTER.choose([Past()] * 12, noise=0.9).told()
    assert told["neighbours"] == [[1.0, 1.0]] * 8
    assert set(told) == {
        "lane", "confidence", "n_eff", "weight", "source", "propensity", "probe", "neighbours"
    }  # fmt: skip


def test_thresholds_that_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="must fall"):
        Thresholds(auto=0.5, paired=0.6)
