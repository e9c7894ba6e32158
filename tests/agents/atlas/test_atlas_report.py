"""The adaptive-efficiency report: figures against an oracle, intervals that cover, a plot."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm as scipy_normal
from scipy.stats import t as scipy_t

from elision.agents.atlas import report as module
from elision.agents.atlas.plot import means, plot, rates
from elision.agents.atlas.report import Row, arm, bootstrap, report
from elision.agents.atlas.report_table import markdown
from elision.errors import ConfigError

Outcome: TypeAlias = tuple[bool | None, int, int, int]
Pairs: TypeAlias = list[tuple[Outcome, Outcome]]

outcomes = st.tuples(
    st.sampled_from([True, False, None]),
    st.integers(0, 900),
    st.integers(0, 900),
    st.integers(0, 9),
)
runs = st.lists(st.tuples(outcomes, outcomes), min_size=1, max_size=12)


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    """The laws hold of any number of resamples; most of the time would go into them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "RESAMPLES", 200)
    yield
    patch.undo()


def row(n: int, outcome: Outcome) -> Row:
    success, student, others, cost = outcome
    reward = None if success is None else float(success)
    return Row(n, success, reward, student, student + others, float(cost))


def both(pairs: Pairs) -> tuple[list[Row], list[Row]]:
    memory = [row(n, m) for n, (m, _) in enumerate(pairs, 1)]
    return memory, [row(n, c) for n, (_, c) in enumerate(pairs, 1)]


def learning(seed: int, *, gain: float) -> list[Row]:
    draw = random.Random(seed)
    noise = [draw.random() for _ in range(60)]
    return [
        Row(n, x < 0.4 + gain * n / 60, float(x < 0.4), 1000 - int(500 * gain * n / 60), 1000, 0.0)
        for n, x in enumerate(noise, 1)
    ]


@given(st.lists(runs, min_size=1, max_size=3))
@settings(max_examples=15)
def test_figures_are_those_of_a_slow_count(
    told: list[Pairs],
) -> None:
    arms = [both(pairs) for pairs in told]
    found = report([m for m, _ in arms], [c for _, c in arms])
    rows_m = [r for m, _ in arms for r in m]
    rows_c = [r for _, c in arms for r in c]
    for side, rows in ((found.memory, rows_m), (found.control, rows_c)):
        known = [r.success for r in rows if r.success is not None]
        total, student = sum(r.tokens_total for r in rows), sum(r.tokens_student for r in rows)
        assert (side.n, side.n_known, side.n_success) == (len(rows), len(known), sum(known))
        assert side.overhead == pytest.approx((total - student) / total if total else 0)
        assert side.tokens_total == pytest.approx(total / len(rows))
        cost = sum(r.cost for r in rows)
        assert side.efficiency == (pytest.approx(sum(known) / cost) if cost else None)
    gains = [
        int(m.success) - int(c.success)
        for m, c in zip(rows_m, rows_c, strict=True)
        if m.success is not None and c.success is not None
    ]
    if gains:
        assert found.success_gain is not None
        assert found.success_gain.value == pytest.approx(fmean(gains))
        assert found.success_gain.low <= found.success_gain.high
    else:
        assert found.success_gain is None
    json.loads(found.to_json())
    assert markdown(found).count("\n| ") >= 8


@given(runs)
@settings(max_examples=30)
def test_memory_breaks_even_where_it_is_never_dearer_again(
    pairs: Pairs,
) -> None:
    memory, control = both(pairs)
    found = report([memory], [control]).break_even
    paid = any(r.cost for r in (*memory, *control))
    spent = [[r.cost if paid else r.tokens_total for r in rows] for rows in (memory, control)]
    ahead = [sum(spent[0][:n]) <= sum(spent[1][:n]) for n in range(1, len(memory) + 1)]
    expected = next((n for n in range(1, len(ahead) + 1) if all(ahead[n - 1 :])), None)
    assert found == expected


@given(runs)
@settings(max_examples=10)
def test_a_control_of_the_same_episodes_shows_no_change(
    pairs: Pairs,
) -> None:
    memory, _ = both(pairs)
    found = report([memory] * 5, [memory] * 5)
    assert found.unit == "run"
    for change in (found.success_gain, found.tokens_change, found.cost_change):
        assert change is None or (change.value, change.low, change.high) == (0, 0, 0)
    assert found.cost_per_success is None
    assert found.break_even == 1


@pytest.mark.parametrize(("n", "least"), [(5, 0.86), (30, 0.88)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n: int, least: float) -> None:
    draw, covered = random.Random(0), 0
    for seed in range(100):
        interval = bootstrap([(draw.gauss(0.2, 1.0), 1.0) for _ in range(n)], seed=seed)
        assert interval is not None
        covered += interval.low <= 0.2 <= interval.high
    assert covered >= 100 * least


@pytest.mark.parametrize("n", [2, 5, 30, 300])
def test_the_tails_are_those_of_students_distribution(n: int) -> None:
    expected = scipy_normal.sf(scipy_t.ppf(0.975, n - 1) * (n / (n - 1)) ** 0.5)
    assert module._tail(n) == pytest.approx(expected, abs=1e-9)


def test_a_gain_over_five_seeds_is_found_and_no_gain_is_not() -> None:
    seeds = range(5)
    control = [learning(seed, gain=0.0) for seed in seeds]
    found = report([learning(seed, gain=0.5) for seed in seeds], control)
    assert found.success_gain is not None
    assert found.success_gain.low > 0
    assert found.student_tokens_change is not None
    assert found.student_tokens_change.high < 0
    assert len(found.windows) == 3
    other = [learning(seed + 100, gain=0.0) for seed in seeds]
    none = report(other, control)
    assert none.success_gain is not None
    assert none.success_gain.low <= 0 <= none.success_gain.high


def test_further_successes_have_their_price() -> None:
    memory = [Row(1, True, 1.0, 5, 9, 3.0), Row(2, True, 1.0, 5, 9, 3.0)]
    control = [Row(1, True, 1.0, 5, 5, 1.0), Row(2, False, 0.0, 5, 5, 1.0)]
    found = report([memory], [control], note="Scripted agents.")
    assert found.cost_per_success == pytest.approx(4.0)
    assert found.break_even is None
    told = markdown(found)
    assert "Cost of each further success: 4." in told
    assert "never" in told
    assert "so changes have too narrow intervals" in told
    assert told.endswith("- Scripted agents.\n")


def test_unknown_outcomes_are_in_no_rate_and_said_to_be() -> None:
    rows = [Row(1, None, None, 5, 5), Row(2, True, 0.7, 5, 5)]
    found = arm(rows)
    assert (found.n, found.n_known, found.n_success, found.reward) == (2, 1, 1, 0.7)
    assert "2 episodes have no known outcome" in markdown(report([rows], [rows]))
    assert arm(rows[:1]).success is None


def test_what_is_not_paired_has_no_report() -> None:
    one, two = Row(1, True, 1.0, 1, 1), Row(2, True, 1.0, 1, 1)
    for memory, control in (([], []), ([[]], [[]]), ([[one]], [[two]]), ([[one]], [[one], [one]]),
                            ([[one, two]], [[two, one]])):  # fmt: skip
        with pytest.raises(ConfigError):
            report(memory, control)
    with pytest.raises(ConfigError):
        arm([])


@given(st.lists(runs, min_size=1, max_size=3), st.integers(1, 5))
@settings(max_examples=20)
def test_running_means_are_those_of_a_slow_count(told: list[Pairs], window: int) -> None:
    memory = [both(pairs)[0] for pairs in told]
    n = min(map(len, memory))
    found = means(memory, lambda r: r.tokens_total, window)
    assert len(found) == len(rates(memory, window)) == n
    for t, value in enumerate(found, 1):
        last = [r.tokens_total for run in memory for r in run if t - window < r.n <= t]
        assert value == pytest.approx(fmean(last))


def test_the_same_rows_give_the_same_plot(tmp_path: Path) -> None:
    memory = [learning(seed, gain=0.5) for seed in range(2)]
    control = [learning(seed, gain=0.0) for seed in range(2)]
    for name in ("a.svg", "b.svg"):
        plot(memory, control, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").stat().st_size > 10_000
