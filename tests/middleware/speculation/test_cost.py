from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.middleware.speculation.cost import CostCurve, curve_key, recall, remember
from elision.middleware.speculation.timing import FEWEST_POINTS, GRID, N_TIMINGS

# Seconds on a CPU without AMX, one thread, float32: dearer at 3 rows than at 4, at 2 than at 4.
STAIRS = [s / 1e3 for s in (67, 110, 130, 96, 111, 113, 137, 143, 178, 194, 261, 304, 390)]
PER_TOKEN = [n * 1e-7 + 1e-6 for n in GRID]

grids = st.lists(st.integers(2, 90), unique=True, max_size=8).map(lambda ns: [1, *sorted(ns)])


@st.composite
def curves(draw: st.DrawFn) -> tuple[CostCurve, list[int], list[float], list[float]]:
    grid = draw(grids)
    size = {"min_size": len(grid), "max_size": len(grid)}
    near = draw(st.lists(st.floats(1e-4, 1.0), **size))
    slope = draw(st.lists(st.floats(0.0, 1e-4), **size))
    return CostCurve(grid, near, slope), grid, near, slope


def in_stairs(**more: float) -> CostCurve:
    return CostCurve(GRID, STAIRS, PER_TOKEN, spread=more.get("spread", 1.1))


# laws


@given(curves(), st.integers(1, 200), st.integers(0, 4000), st.integers(1, 8))
def test_a_size_costs_what_was_measured_or_the_dearer_of_its_neighbours(
    drawn: tuple[CostCurve, list[int], list[float], list[float]], n: int, n_context: int, n_seq: int
) -> None:
    curve, grid, near, slope = drawn
    below, above = [g for g in grid if g <= n][-1], [g for g in [*grid, grid[-1]] if g >= n][:1]
    asked = max(64, n_context)

    def point(g: int) -> float:
        i = grid.index(g)
        return near[i] + slope[i] * (asked - 64) + slope[0] * asked * (n_seq - 1)

    want = max(point(below), point(above[0] if above else below)) * max(1.0, n / grid[-1])
    assert curve.seconds(n, n_context, n_seq) == pytest.approx(want)


@given(curves(), st.integers(1, 40), st.integers(0, 300), st.integers(0, 2000))
def test_a_sweep_is_the_single_answers(
    drawn: tuple[CostCurve, list[int], list[float], list[float]],
    first: int,
    more: int,
    context: int,
) -> None:
    curve = drawn[0]
    single = [curve.seconds(n, context, 2) for n in range(first, first + more + 1)]
    assert curve.sweep(first, first + more, context, 2).tolist() == pytest.approx(single)


@given(curves(), st.lists(st.tuples(st.integers(1, 300), st.floats(1e-6, 50.0)), max_size=60))
def test_whatever_is_observed_costs_stay_finite_positive_and_below_the_high_ones(
    drawn: tuple[CostCurve, list[int], list[float], list[float]], seen: list[tuple[int, float]]
) -> None:
    curve = drawn[0]
    for n, seconds in seen:
        curve.observe(n, 100, seconds)
    costs = curve.sweep(1, 120, 100)
    assert np.isfinite(costs).all()
    assert (costs > 0).all()
    assert all(curve.high(n, 100) >= curve.seconds(n, 100) for n in (1, 7, 120))


@given(curves())
def test_a_curve_survives_json(
    drawn: tuple[CostCurve, list[int], list[float], list[float]],
) -> None:
    curve = drawn[0]
    again = CostCurve.from_json(json.loads(json.dumps(curve.to_json())))
    assert again.to_json() == curve.to_json()
    assert again.sweep(1, 90, 700).tolist() == pytest.approx(
        curve.sweep(1, 90, 700).tolist(), rel=1e-4
    )


@given(st.sampled_from(GRID), st.floats(0.1, 40.0))
def test_a_machine_that_gets_slower_does_so_for_every_size_alike(n: int, factor: float) -> None:
    curve, before = in_stairs(), in_stairs()
    for _ in range(20):
        curve.observe(n, 300, factor * before.seconds(n, 300))
    ratio = curve.sweep(1, 81, 300) / before.sweep(1, 81, 300)
    assert ratio.tolist() == pytest.approx([factor] * 81)


def test_a_busy_minute_that_met_one_size_only_leaves_the_others_as_they_were() -> None:
    curve, calm = in_stairs(), in_stairs()
    for load in (1.0, 6.0, 1.0):
        for _ in range(300):
            curve.observe(16, 300, load * calm.seconds(16, 300))
    assert curve.seconds(1, 300) == pytest.approx(calm.seconds(1, 300))


# corrections


def test_a_size_that_was_measured_wrongly_is_put_right_against_the_others() -> None:
    curve, truth = in_stairs(), dict(zip(GRID, STAIRS, strict=True)) | {16: 0.2}
    noise = random.Random(1)
    for _ in range(200):
        for n in (1, 16, 8):
            curve.observe(n, 64, truth[n] * noise.lognormvariate(0, 0.05))
    found = curve.seconds(16, 64) / curve.seconds(1, 64)
    assert found == pytest.approx(0.2 / STAIRS[0], rel=0.08)
    assert curve.seconds(8, 64) / curve.seconds(1, 64) == pytest.approx(
        STAIRS[5] / STAIRS[0], rel=0.08
    )


def test_an_error_between_two_sizes_does_not_pass_to_either() -> None:
    curve = in_stairs()
    for _ in range(100):
        curve.observe(1, 64, STAIRS[0])
        curve.observe(14, 64, 0.1)
    assert curve.seconds(14, 64) < 0.115
    assert curve.seconds(16, 64) / curve.seconds(12, 64) == pytest.approx(STAIRS[7] / STAIRS[6])


def test_what_several_sequences_cost_on_top_is_carried_over_to_sizes_not_seen_with_them() -> None:
    curve, plain = in_stairs(), in_stairs()
    for _ in range(100):
        curve.observe(1, 64, plain.seconds(1, 64))
        curve.observe(8, 64, 1.5 * plain.seconds(8, 64, 4), 4)
    one, four = curve.seconds(16, 64), curve.seconds(16, 64, 4)
    asked = plain.seconds(16, 64, 4) / plain.seconds(16, 64)
    assert four / one == pytest.approx(1.5 * asked, rel=0.1)


def test_nine_forwards_in_ten_stay_below_the_high_estimate() -> None:
    curve, noise, within = in_stairs(), random.Random(3), 0
    for i in range(2000):
        n = (1, 8, 16)[i % 3]
        took = STAIRS[GRID.index(n)] * noise.lognormvariate(0, 0.15)
        within += took <= curve.high(n, 64)
        curve.observe(n, 64, took)
    assert 0.85 <= within / 2000 <= 0.95


def test_an_outlier_moves_neither_drift_nor_cost() -> None:
    curve = in_stairs()
    for i in range(40):
        curve.observe(4, 64, STAIRS[3] * (500 if i % 10 == 5 else 1))
    assert curve.drift == pytest.approx(1.0)
    assert curve.seconds(4, 64) == pytest.approx(STAIRS[3])


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_cannot_be_is_passed_over(seconds: float) -> None:
    curve = in_stairs()
    curve.observe(4, 64, seconds)
    assert curve.seconds(4, 64) == pytest.approx(STAIRS[3])


# measuring


class Machine:
    """A machine whose forwards cost what a formula says, and whose clock shows it."""

    def __init__(self, *, scale: float = 1.0, hiccups: float = 0.0) -> None:
        self.now, self.calls = 0.0, list[tuple[int, int]]()
        self._scale, self._hiccups, self._rng = scale, hiccups, random.Random(5)

    def cost(self, n: int, n_context: int) -> float:
        i = GRID.index(n)
        return self._scale * (STAIRS[i] + PER_TOKEN[i] * (n_context - 64))

    def __call__(self, n: int, n_context: int, /) -> float:
        took = self.cost(n, n_context) * (10 if self._rng.random() < self._hiccups else 1)
        self.now += took
        self.calls.append((n, n_context))
        return took


def measured(machine: Machine, budget_s: float = 3.0) -> CostCurve:
    return CostCurve.measure(machine, budget_s=budget_s, clock=lambda: machine.now)


def test_measuring_a_quick_model_finds_its_curve_in_all_sizes_and_contexts() -> None:
    machine = Machine(scale=0.01)
    curve = measured(machine)
    assert curve.grid == GRID
    for n in GRID:
        for context in (64, 512, 2000):
            assert curve.seconds(n, context) == pytest.approx(machine.cost(n, context), rel=1e-6)


def test_measuring_is_not_misled_by_hiccups() -> None:
    curve, machine = measured(Machine(scale=0.01, hiccups=0.1)), Machine(scale=0.01)
    for n in GRID:
        assert curve.seconds(n, 64) == pytest.approx(machine.cost(n, 64), rel=1e-6)
    assert curve.spread > 1.1


@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
def test_a_slower_model_gets_fewer_sizes_and_the_budget_is_kept(scale: float) -> None:
    machine = Machine(scale=scale)
    curve = measured(machine)
    warm_up = sum(machine.cost(n, 64) for n in curve.grid) + 2 * machine.cost(1, 64)
    longest = machine.cost(81, 512)
    assert FEWEST_POINTS <= len(curve.grid) < len(GRID)
    assert machine.now <= max(3.0 + longest, warm_up)
    assert curve.seconds(1, 64) == pytest.approx(machine.cost(1, 64))


def test_sizes_are_timed_in_turns_and_never_in_the_same_order() -> None:
    machine = Machine(scale=0.01)
    measured(machine)
    per_turn = len(GRID) + 2
    body = machine.calls[2:]
    turns = [body[i : i + per_turn] for i in range(0, len(body), per_turn)]
    assert len(turns) > N_TIMINGS
    assert all(sorted(turn) == sorted(turns[0]) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == len(turns)


def test_a_real_product_is_measured_within_its_budget() -> None:
    weights = np.ones((512, 2048), dtype=np.float32)

    def timer(n: int, n_context: int, /) -> float:
        rows = np.ones((n, 512), dtype=np.float32)
        start = time.perf_counter()
        _ = rows @ weights
        return time.perf_counter() - start

    start = time.perf_counter()
    curve = CostCurve.measure(timer, budget_s=0.2)
    assert time.perf_counter() - start < 2.0
    assert 0 < curve.seconds(1, 64) < 0.2
    assert 1.0 <= curve.spread <= 1.5


# keeping


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"grid": [1]},
        {"grid": [2], "near_s": [0.1], "slope_s": [0.0], "n_context": 64, "spread": 1.1},
        {"grid": [1, 1], "near_s": [1, 1], "slope_s": [0, 0], "n_context": 64, "spread": 1.1},
        {"grid": [1], "near_s": [0.0], "slope_s": [0.0], "n_context": 64, "spread": 1.1},
        {"grid": [1], "near_s": [math.nan], "slope_s": [0.0], "n_context": 64, "spread": 1.1},
        {"grid": [1], "near_s": [0.1], "slope_s": [-1.0], "n_context": 64, "spread": 1.1},
        {"grid": [1, 2], "near_s": [0.1], "slope_s": [0.0], "n_context": 64, "spread": 1.1},
        {"grid": [], "near_s": [], "slope_s": [], "n_context": 64, "spread": 1.1},
    ],
)
def test_what_is_no_curve_is_refused(data: dict[str, Sequence[float]]) -> None:
    with pytest.raises(ConfigError, match="cost curve"):
        CostCurve.from_json(data)


def test_curves_are_remembered_each_under_its_key(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "cost.json"
    packed = curve_key("abc", dtype="bfloat16", n_threads=2, packed=True)
    plain = curve_key("abc", dtype="bfloat16", n_threads=2, packed=False)
    assert recall(file, packed) is None
    remember(file, packed, in_stairs())
    remember(file, plain, CostCurve([1, 2], [0.1, 0.2]))
    first, second = recall(file, packed), recall(file, plain)
    assert first is not None
    assert second is not None
    assert first.to_json() == in_stairs().to_json()
    assert second.grid == (1, 2)
    assert [path.name for path in file.parent.iterdir()] == ["cost.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": 3}', '{"key": {"grid": "x"}}'])
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cost.json"
    file.write_text(text)
    assert recall(file, "key") is None
    remember(file, "key", in_stairs())
    assert recall(file, "key") is not None


def test_what_was_learned_in_a_busy_hour_is_not_kept() -> None:
    curve = in_stairs()
    for _ in range(50):
        curve.observe(4, 64, 9.0)
    assert curve.to_json() == in_stairs().to_json()
