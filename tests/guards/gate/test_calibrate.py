"""Calibration: the threshold is chosen on one part of the prompts and judged on the other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.guards.gate.assessment import Level
from elision.guards.gate.calibrate import _above, _split, calibrate
from elision.guards.gate.gate import Gate, GatePolicy
from elision.guards.gate.views import Turn
from elision.guards.targets import ForgetTarget
from elision.testing.encoders import BagEncoder

WORDS = "mill river stone bread night garden letter winter road tower sea island bell rope".split()
TARGET = ForgetTarget(id="mill", title="mill", probes=("mill river stone bread night garden",))


def prompts(n: int) -> list[list[Turn]]:
    rng = random.Random(3)
    return [[Turn("user", " ".join(rng.sample(WORDS, 6)))] for _ in range(n)]


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate.compile([TARGET], BagEncoder(), tenant="t", policy=GatePolicy(t_lo=0.1))


@given(st.lists(st.floats(-1, 1), min_size=1), st.floats(0.001, 0.999))
def test_no_more_than_the_share_reach_the_threshold_and_no_lower_one_would_do(
    scores: list[float], share: float
) -> None:
    threshold = _above(scores, share)
    assert sum(s >= threshold for s in scores) <= share * len(scores)
    highest_below = max(s for s in scores if s < threshold)
    assert sum(s >= highest_below for s in scores) > share * len(scores)


@given(
    st.lists(st.integers(0, 5), min_size=2).filter(lambda groups: len(set(groups)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_no_group_is_in_both_parts_and_neither_is_empty(
    groups: list[int], share: float, seed: int
) -> None:
    chosen = _split(groups, share, seed)
    here = {g for g, c in zip(groups, chosen, strict=True) if c}
    there = {g for g, c in zip(groups, chosen, strict=True) if not c}
    assert here
    assert there
    assert not here & there


def test_the_rate_is_that_of_the_prompts_held_out(gate: Gate) -> None:
    asked = prompts(300)
    done = calibrate(gate, asked, target_fpr=0.1, seed=1)
    assert done.n_calibration + done.held_out.n == 300
    assert 0.6 < done.policy.t_hi < 1
    held_out = [turns for turns, c in zip(asked, _split(range(300), 0.5, 1), strict=True) if not c]
    calibrated = gate.under(done.policy)
    levels = [calibrated.assess(turns).result(timeout=10).level for turns in held_out]
    assert done.held_out.hits == sum(level is Level.OPEN for level in levels)
    low, high = done.held_out.interval
    assert low <= 0.1 <= high
    assert done.warnings == ("few_negatives",)


def test_the_same_seed_gives_the_same_threshold(gate: Gate) -> None:
    asked = prompts(60)
    assert calibrate(gate, asked, seed=4) == calibrate(gate, asked, seed=4)


def test_what_cannot_be_told_from_few_prompts_is_said(gate: Gate) -> None:
    done = calibrate(gate.under(GatePolicy(t_lo=0.99)), prompts(20), target_fpr=0.01)
    assert done.warnings == ("few_negatives", "target_unresolved", "below_watch")
    assert done.policy.t_hi == 0.99


@pytest.mark.parametrize(
    ("n", "options"),
    [(1, {}), (0, {}), (9, {"target_fpr": 0.0}), (9, {"share": 1.0}), (9, {"groups": [1, 2]}),
     (9, {"groups": [1] * 9})],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_refused(
    gate: Gate, n: int, options: dict[str, float]
) -> None:
    with pytest.raises(ConfigError):
        calibrate(gate, prompts(n), **options)
