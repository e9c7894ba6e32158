"""Drift alarms: z and MAD-z against an oracle, and how rarely quiet series raise one."""

from __future__ import annotations

import random
import statistics
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.atlas.drift import Alarm, DriftMonitor, DriftPolicy, deviation
from elision.errors import ConfigError
from elision.memory.records import Scope

SCOPE = Scope("t", ("a",))
values = st.floats(0, 1)
series = st.lists(values, min_size=20, max_size=80)


@given(values, series)
def test_deviations_are_those_of_the_equations(value: float, baseline: list[float]) -> None:
    found = deviation(value, baseline)
    kept = baseline[-50:]
    mean = sum(kept) / len(kept)
    spread = (sum((b - mean) ** 2 for b in kept) / len(kept)) ** 0.5
    middle = statistics.median(kept)
    mad = 1.4826 * statistics.median([abs(b - middle) for b in kept])
    assert found is not None
    assert found.n == len(kept)
    assert found.z == pytest.approx((value - mean) / max(spread, 0.05), abs=1e-6)
    if mad == 0:
        assert found.mad_z is None
    else:
        assert found.mad_z == pytest.approx((value - middle) / max(mad, 0.05), abs=1e-6)


@given(values, st.lists(values, max_size=19))
def test_few_values_tell_nothing(value: float, baseline: list[float]) -> None:
    assert deviation(value, baseline) is None


def test_a_value_out_of_the_ordinary_raises_an_alarm_and_usual_ones_do_not() -> None:
    monitor = DriftMonitor(DriftPolicy(n_least=5))
    usual = [0.7, 0.75, 0.72, 0.69, 0.71, 0.74, 0.7, 0.73]
    alarms = [monitor.observe(SCOPE, "judge", score=s, uncertainty=0.1) for s in usual]
    assert not any(alarms)
    low = monitor.observe(SCOPE, "judge", score=0.1, uncertainty=0.9)
    assert [alarm.what for alarm in low] == ["score", "uncertainty"]
    assert all(isinstance(alarm, Alarm) and alarm.deviation.largest >= 3 for alarm in low)


def test_a_reward_is_compared_with_those_before_it_not_with_itself() -> None:
    monitor = DriftMonitor(DriftPolicy(n_least=2, window=2))
    for _ in range(4):
        assert monitor.observe(SCOPE, "judge", score=0.5) == ()
    assert monitor.observe(SCOPE, "judge", score=1.0)
    assert monitor.observe(SCOPE, "judge", score=1.0) == ()


def test_the_first_failure_after_a_few_easy_successes_is_no_alarm() -> None:
    monitor = DriftMonitor()
    assert not any(monitor.observe(SCOPE, "env", score=1.0) for _ in range(19))
    assert monitor.observe(SCOPE, "env", score=0.0) == ()


def test_scopes_and_judges_are_kept_apart_and_a_baseline_can_be_given() -> None:
    monitor = DriftMonitor()
    monitor.prime(SCOPE, "judge", [0.9] * 50)
    assert monitor.observe(Scope("u", ("a",)), "judge", score=0.0) == ()
    assert monitor.observe(SCOPE, "other", score=0.0) == ()
    assert monitor.observe(SCOPE, "judge", score=0.0)


def test_failures_of_a_scope_that_often_fails_are_no_alarm() -> None:
    for share in (0.3, 0.5, 0.7, 0.8):
        draw, monitor = random.Random(1), DriftMonitor()
        monitor.prime(SCOPE, "env", [float(draw.random() < share) for _ in range(50)])
        rewards = [float(draw.random() < share) for _ in range(300)]
        alarms = [monitor.observe(SCOPE, "env", score=r) for r in rewards]
        assert sum(map(bool, alarms)) <= 6


def test_a_quiet_series_rarely_raises_an_alarm() -> None:
    draw, monitor = random.Random(2), DriftMonitor()
    scores = [min(1.0, max(0.0, draw.gauss(0.6, 0.1))) for _ in range(1000)]
    assert sum(bool(monitor.observe(SCOPE, "judge", score=s)) for s in scores) <= 25


def test_the_longest_unused_series_is_dropped() -> None:
    monitor = DriftMonitor(most=2)
    for judge in ("one", "two", "three"):
        monitor.prime(SCOPE, judge, [0.9] * 20)
    assert monitor.observe(SCOPE, "one", score=0.0) == ()
    assert monitor.observe(SCOPE, "three", score=0.0)


def test_threads_lose_no_value() -> None:
    monitor = DriftMonitor(DriftPolicy(window=400))
    threads = [
        threading.Thread(
            target=lambda: [monitor.observe(SCOPE, "judge", score=0.5) for _ in range(100)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (alarm,) = monitor.observe(SCOPE, "judge", score=1.0)
    assert alarm.deviation.n == 400


def test_policies_that_tell_nothing_and_values_without_end_are_refused() -> None:
    for options in ({"n_least": 1}, {"window": 3}, {"threshold": 0}, {"resolution": 0}):
        with pytest.raises(ConfigError):
            DriftPolicy(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        deviation(float("nan"), [0.5] * 9)
