from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation.stats import (
    DECAY,
    PRIOR_WEIGHT,
    PROB_EDGES,
    REFRESH_TRIALS,
    RankStats,
    rank_prior,
)

ROW = list(range(10, 18))
UNKNOWN = [0.0] * 8
probs = st.floats(0.0, 1.0)
trials = st.lists(
    st.tuples(st.lists(probs, min_size=8, max_size=8), st.integers(8, 20), st.integers(1, 5)),
    max_size=2 * REFRESH_TRIALS,
)


def bucket(prob: float) -> int:
    return sum(prob >= edge for edge in PROB_EDGES) if prob > 0 else -1


@given(trials)
def test_weights_are_the_discounted_shares_of_hits(
    seen: list[tuple[list[float], int, int]],
) -> None:
    stats, fresh = RankStats(), RankStats()
    for given_probs, token, depth in seen:
        stats.observe(ROW, given_probs, token, depth)
    counted = seen[: len(seen) // REFRESH_TRIALS * REFRESH_TRIALS]
    for given_probs, _, depth in seen[:5]:
        for rank, prob in enumerate(given_probs):
            hits, total = PRIOR_WEIGHT * fresh.weight(rank, prob, depth), PRIOR_WEIGHT
            for others, token, at in counted:
                same = bucket(others[rank]) == bucket(prob) and min(at, 3) == min(depth, 3)
                if same:
                    hits, total = hits * DECAY + (ROW[rank] == token), total * DECAY + 1
            wanted = min(0.98, max(1e-4, hits / total))
            assert stats.weight(rank, prob, depth) == pytest.approx(wanted, abs=1e-4)


@given(trials, st.integers(1, 5))
def test_the_weights_of_a_row_are_those_of_its_ranks_and_are_probabilities(
    seen: list[tuple[list[float], int, int]], depth: int
) -> None:
    stats = RankStats()
    for given_probs, token, at in seen:
        stats.observe(ROW, given_probs, token, at)
    for given_probs, _, _ in seen[:5]:
        weights = stats.weights(given_probs, depth)
        assert weights == [stats.weight(r, p, depth) for r, p in enumerate(given_probs)]
        assert all(0 < weight < 1 for weight in weights)


def test_before_anything_is_seen_unknown_probabilities_weigh_as_the_paper_accepts() -> None:
    weights = RankStats().weights(UNKNOWN, 1)
    assert weights == pytest.approx([rank_prior(rank) for rank in range(8)])
    assert weights[0] == pytest.approx(0.45)
    assert sum(weights) == pytest.approx(0.75, abs=1e-3)


def test_before_anything_is_seen_what_was_probable_weighs_more() -> None:
    stats = RankStats()
    for rank in range(8):
        ladder = [
            stats.weight(rank, p, 1)
            for p in (0.001, 0.01, 0.03, 0.08, 0.15, 0.3, 0.5, 0.7, 0.8, 0.95)
        ]
        assert ladder == sorted(ladder)
        assert ladder[0] < ladder[-1]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_find_the_hit_rates_of_a_text_and_follow_when_it_turns(depth: int) -> None:
    draw, stats = random.Random(depth), RankStats()
    given_probs = [0.8, 0.15, 0.02, 0.01, 0.005, 0.005, 0.005, 0.005]
    for first, second in ((0.6, 0.2), (0.1, 0.7)):
        for _ in range(1500):
            luck = draw.random()
            token = ROW[0] if luck < first else ROW[1] if luck < first + second else 99
            stats.observe(ROW, given_probs, token, depth)
        assert stats.weight(0, 0.8, depth) == pytest.approx(first, abs=0.1)
        assert stats.weight(1, 0.15, depth) == pytest.approx(second, abs=0.1)
        assert stats.weight(2, 0.02, depth) < 0.01


def test_what_is_seen_at_one_depth_says_nothing_of_another_but_all_deep_ones_are_one() -> None:
    stats, fresh = RankStats(), RankStats()
    for _ in range(REFRESH_TRIALS):
        stats.observe(ROW, UNKNOWN, ROW[3], 4)
    assert stats.weights(UNKNOWN, 1) == fresh.weights(UNKNOWN, 1)
    assert stats.weights(UNKNOWN, 2) == fresh.weights(UNKNOWN, 2)
    assert stats.weights(UNKNOWN, 3) == stats.weights(UNKNOWN, 9) != fresh.weights(UNKNOWN, 3)


def test_weights_are_taken_anew_every_so_many_trials() -> None:
    stats = RankStats()
    before = stats.weights(UNKNOWN, 1)
    for _ in range(REFRESH_TRIALS - 1):
        stats.observe(ROW, UNKNOWN, ROW[0], 1)
    assert stats.weights(UNKNOWN, 1) == before
    stats.observe(ROW, UNKNOWN, ROW[0], 1)
    assert stats.weight(0, 0.0, 1) > before[0]


def test_a_trial_tells_the_rank_and_an_unwritten_row_is_none() -> None:
    stats = RankStats()
    assert stats.observe(ROW, UNKNOWN, 12, 1) == 2
    assert stats.observe(ROW, UNKNOWN, 99, 1) is None
    assert stats.observe([], [], 12, 1) is None
    assert stats.observe(ROW[:2], UNKNOWN[:2], 11, 2) == 1
    assert stats.n_trials == 3
    assert stats.by_rank() == pytest.approx((0, 1 / 3, 1 / 3, 0, 0, 0, 0, 0))


def test_it_tells_how_much_it_has_seen_and_no_token() -> None:
    stats = RankStats()
    stats.observe([777], [0.5], 777, 1)
    assert repr(stats) == "RankStats(k=8, n_trials=1)"
