"""The coin, the running sums, and the effect read off them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.memory.learning.attribution import (
    Contrast,
    combine,
    contrast,
    score,
    shrink,
    spending,
    summarise,
)
from elision.memory.learning.evidence import Arm, Evidence, Phase, draw

PROPENSITIES = (0.5, 0.7, 0.9)
Row = tuple[float, bool, float, int, float]

rows = st.tuples(
    st.sampled_from(PROPENSITIES),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 10_000),
    st.floats(0, 10),
)
histories = st.lists(rows, max_size=16)


def told(history: list[Row]) -> Evidence:
    evidence = Evidence()
    for propensity, applied, reward, tokens, cost in history:
        evidence = evidence.after(
            propensity, applied=applied, reward=reward, tokens=tokens, cost=cost
        )
    return evidence


def arms(history: list[Row], column: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the values of the applied and the withheld episodes, by propensity."""
    return [
        tuple(
            np.array([row[column] for row in history if row[0] == p and row[1] is z])
            for z in (True, False)
        )
        for p in PROPENSITIES
    ]  # type: ignore[return-value]


def slow_contrast(history: list[Row], *, pooled: bool = False) -> tuple[float, float] | None:
    found = []
    for a, w in arms(history, 2):
        if len(a) and len(w):
            both = np.concatenate([a, w])
            va, vw = (np.var([*(both if pooled else x), 0.0, 1.0]) for x in (a, w))
            found.append((a.mean() - w.mean(), va / len(a) + vw / len(w)))
    if not found:
        return None
    deltas, variances = np.array(found).T
    weights = 1 / variances / (1 / variances).sum()
    return float(weights @ deltas), float(weights**2 @ variances)


# Laws


@given(st.integers(), st.text(max_size=9), st.text(max_size=9), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_propensity_never_withholds_what_a_lower_one_applied(
    seed: int, episode: str, entry: str, p: float, q: float
) -> None:
    low, high = sorted((p, q))
    assert draw(seed, episode, entry, low) <= draw(seed, episode, entry, high)
    assert draw(seed, episode, entry, 1.0)
    assert not draw(seed, episode, entry, 0.0)


@given(histories, st.randoms())
def test_the_order_of_the_episodes_does_not_matter(history: list[Row], random: object) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = summarise(told(history)), summarise(told(shuffled))
    assert (one is None) is (other is None)
    if one is not None and other is not None:
        assert one.belief.p_up == pytest.approx(other.belief.p_up, abs=1e-9)
        assert one.reward.delta == pytest.approx(other.reward.delta, abs=1e-9)
        assert one.score.z == pytest.approx(other.score.z, abs=1e-9)


@given(histories)
def test_probabilities_are_probabilities_and_the_two_make_one(history: list[Row]) -> None:
    found = summarise(told(history))
    if found is not None:
        assert 0 <= found.belief.p_up <= 1
        assert 0 <= found.belief.p_down <= 1
        assert found.belief.p_up + found.belief.p_down == pytest.approx(1)


@given(histories)
def test_mirrored_rewards_mirror_what_is_believed(history: list[Row]) -> None:
    mirrored = [(p, z, 1 - r, k, c) for p, z, r, k, c in history]
    one, other = summarise(told(history)), summarise(told(mirrored))
    if one is not None and other is not None:
        assert one.belief.p_up == pytest.approx(other.belief.p_down, abs=1e-9)
        assert one.reward.delta == pytest.approx(-other.reward.delta, abs=1e-9)
        assert one.score.z == pytest.approx(-other.score.z, abs=1e-9)


@given(histories, st.integers(2, 5))
def test_the_same_said_more_often_narrows(history: list[Row], times: int) -> None:
    once, often = contrast(told(history)), contrast(told(history * times))
    if once is not None and often is not None:
        assert often.variance < once.variance
        assert shrink(often).variance < shrink(once).variance


@given(histories)
def test_the_prior_pulls_towards_nought_and_never_past_it(history: list[Row]) -> None:
    seen = contrast(told(history))
    if seen is not None:
        belief = shrink(seen)
        assert abs(belief.mean) <= abs(seen.delta)
        assert belief.mean * seen.delta >= 0
        assert belief.variance < min(seen.variance, 0.15**2)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-6, 1)), min_size=1, max_size=6))
def test_a_combination_lies_within_and_is_surer_than_its_surest_part(
    parts: list[tuple[float, float]],
) -> None:
    whole = combine(Contrast(*part) for part in parts)
    assert whole is not None
    deltas = [delta for delta, _ in parts]
    assert min(deltas) - 1e-9 <= whole.delta <= max(deltas) + 1e-9
    assert whole.variance <= min(variance for _, variance in parts) * (1 + 1e-9)


# Parity with numpy


@given(histories)
def test_the_contrast_is_what_numpy_says(history: list[Row]) -> None:
    seen, slow = contrast(told(history)), slow_contrast(history)
    assert (seen is None) is (slow is None)
    if seen is not None and slow is not None:
        assert (seen.delta, seen.variance) == pytest.approx(slow, abs=1e-9)


@given(histories)
def test_the_score_takes_one_variance_for_both_arms(history: list[Row]) -> None:
    tested, slow = score(told(history)), slow_contrast(history, pooled=True)
    assert (tested is None) is (slow is None)
    if tested is not None and slow is not None:
        assert tested.z == pytest.approx(slow[0] / math.sqrt(slow[1]), abs=1e-9)
        assert tested.information == pytest.approx(1 / slow[1])


@given(histories)
def test_the_posterior_is_that_of_a_fine_grid(history: list[Row]) -> None:
    seen = contrast(told(history))
    if seen is None:
        return
    grid = np.linspace(-1.5, 1.5, 30_001)
    mass = np.exp(-((grid - seen.delta) ** 2) / (2 * seen.variance) - grid**2 / (2 * 0.15**2))
    mass /= mass.sum()
    belief = shrink(seen)
    assert belief.mean == pytest.approx(float(mass @ grid), abs=1e-6)
    assert belief.variance == pytest.approx(float(mass @ (grid - belief.mean) ** 2), rel=1e-4)
    assert belief.p_up == pytest.approx(float(mass[grid > 0].sum()), abs=1e-3)
    assert belief.above(-0.02) == pytest.approx(float(mass[grid > -0.02].sum()), abs=1e-3)


@given(histories)
def test_tokens_and_cost_are_what_numpy_says(history: list[Row]) -> None:
    for measure, column in (("tokens", 3), ("cost", 4)):
        seen = spending(told(history), measure)  # type: ignore[arg-type]
        kept = [(a, w) for a, w in arms(history, column) if min(len(a), len(w)) >= 2]
        assert (seen is None) is (not kept)
        if seen is not None:
            weights = np.array([len(a) * len(w) / (len(a) + len(w)) for a, w in kept])
            weights /= weights.sum()
            deltas = np.array([a.mean() - w.mean() for a, w in kept])
            errors = np.array([a.var(ddof=1) / len(a) + w.var(ddof=1) / len(w) for a, w in kept])
            assert seen.delta == pytest.approx(float(weights @ deltas), rel=1e-9, abs=1e-9)
            assert seen.variance == pytest.approx(float(weights**2 @ errors), rel=1e-6, abs=1e-6)


# Examples


def test_a_draw_is_the_same_on_every_machine() -> None:
    drawn = "".join("10"[not draw(7, f"episode-{n}", "entry", 0.7)] for n in range(24))
    assert drawn == "101000111000010101111101"


def test_what_is_drawn_keeps_the_propensity_and_entries_do_not_follow_each_other() -> None:
    n = 8_000
    drawn = np.array([[draw(1, str(t), e, 0.7) for e in ("a", "b")] for t in range(n)], float)
    assert drawn.mean(axis=0) == pytest.approx([0.7, 0.7], abs=4 * math.sqrt(0.21 / n))
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / math.sqrt(n)
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 4 / math.sqrt(n)


def test_ids_that_run_together_are_told_apart() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "")]
    drawn = {pair: [draw(s, *pair, 0.5) for s in range(64)] for pair in pairs}
    assert len({tuple(one) for one in drawn.values()}) == len(pairs)


def test_phases_of_another_propensity_are_not_poured_together() -> None:
    """The base rate rises from 0 to 1 between the phases; the entry does nothing."""
    evidence = Evidence()
    for propensity, reward in ((0.7, 0.0), (0.9, 1.0)):
        for applied, n in ((True, round(100 * propensity)), (False, round(100 - 100 * propensity))):
            for _ in range(n):
                evidence = evidence.after(propensity, applied=applied, reward=reward)
    seen = contrast(evidence)
    assert seen is not None
    assert seen.delta == 0
    applied, withheld = (
        sum((getattr(p, arm) for p in evidence.phases), Arm()) for arm in ("applied", "withheld")
    )
    assert applied.rewards / applied.n - withheld.rewards / withheld.n > 0.3


@pytest.mark.parametrize("applied", [True, False])
def test_one_empty_arm_says_nothing(applied: bool) -> None:
    evidence = Evidence()
    for _ in range(50):
        evidence = evidence.after(0.5, applied=applied, reward=1.0, tokens=3, cost=1.0)
    assert contrast(evidence) is None
    assert score(evidence) is None
    assert spending(evidence, "tokens") is None
    assert summarise(evidence) is None


def test_the_smoothed_variance_of_hits_is_the_specs() -> None:
    arm = sum((Arm().after(float(hit)) for hit in (1, 1, 0, 1)), Arm())
    mean = (3 + 1) / (4 + 2)
    assert arm.smoothed_variance == pytest.approx(mean * (1 - mean))


def test_the_plain_interval_leaves_five_in_a_hundred_on_each_side() -> None:
    low, high = Contrast(0.1, 0.04).interval
    assert (low, high) == pytest.approx((0.1 - 1.644854 * 0.2, 0.1 + 1.644854 * 0.2), abs=1e-6)


def test_far_out_the_small_probability_is_not_rounded_away() -> None:
    belief = shrink(Contrast(1.0, 1e-2))
    assert belief.p_up == 1.0
    assert 1e-18 < belief.p_down < 1e-16


def test_assigned_information_is_known_before_the_rewards() -> None:
    phase = Phase(0.7, applied=Arm(n=6), withheld=Arm(n=4))
    assert phase.assigned == pytest.approx(10 * 0.7 * 0.3)
    assert phase.balance == pytest.approx(2.4)


@pytest.mark.parametrize("reward", [-0.1, 1.1, math.nan, math.inf])
def test_a_reward_outside_nought_to_one_is_refused(reward: float) -> None:
    with pytest.raises(ConfigError, match="rewards lie between 0 and 1"):
        Arm().after(reward)


@pytest.mark.parametrize(("tokens", "cost"), [(-1, 0.0), (0, -1.0), (0, math.nan), (0, math.inf)])
def test_negative_or_endless_spending_is_refused(tokens: int, cost: float) -> None:
    with pytest.raises(ConfigError, match="negative or endless"):
        Arm().after(1.0, tokens=tokens, cost=cost)


@pytest.mark.parametrize(("propensity", "applied"), [(1.0, False), (0.0, True), (1.5, True)])
def test_an_arm_that_could_not_be_drawn_is_refused(propensity: float, applied: bool) -> None:
    with pytest.raises(ConfigError, match="cannot have drawn"):
        Evidence().after(propensity, applied=applied, reward=1.0)


@pytest.mark.parametrize("propensity", [-0.1, 1.1, math.nan])
def test_a_propensity_that_is_no_probability_is_refused(propensity: float) -> None:
    with pytest.raises(ConfigError, match="lies between 0 and 1"):
        draw(0, "episode", "entry", propensity)


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_a_prior_without_width_is_refused(width: float) -> None:
    with pytest.raises(ConfigError, match="prior_sd"):
        shrink(Contrast(0.1, 0.1), prior_sd=width)


def test_the_plain_interval_and_the_belief_cover_what_is_true() -> None:
    """800 entries of 60 episodes whose effects come from the prior itself."""
    random = np.random.default_rng(5)
    plain, believed, n = 0, 0, 800
    for _ in range(n):
        effect = float(np.clip(random.normal(0, 0.15), -0.4, 0.4))
        shown = random.random(60) < 0.7
        won = random.random(60) < 0.5 + effect * shown
        sides = [
            Arm(
                k := int((shown == z).sum()),
                float(won[shown == z].sum()),
                float(won[shown == z].sum()),
            )
            for z in (True, False)
        ]
        assert k > 0
        seen = contrast(Evidence((Phase(0.7, *sides),)))
        assert seen is not None
        low, high = seen.interval
        plain += low <= effect <= high
        believed += 0.05 <= shrink(seen).above(effect) <= 0.95
    slack = 3 * math.sqrt(0.09 / n)
    assert plain / n == pytest.approx(0.9, abs=slack)
    assert believed / n == pytest.approx(0.9, abs=slack)


def test_neighbouring_numbers_of_episodes_narrow_one_by_one() -> None:
    variances = []
    for n in range(4, 40, 4):
        evidence = told([(0.5, bool(t % 2), float(t // 2 % 2), 0, 0.0) for t in range(n)])
        seen = contrast(evidence)
        assert seen is not None
        variances.append(seen.variance)
    assert all(late < early for early, late in pairwise(variances))
