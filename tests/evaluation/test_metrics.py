"""The metrics of unlearning: laws, slow oracles, and the published numbers."""

from __future__ import annotations

import json
import math
import os
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.evaluation.metrics import (
    Metric,
    bootstrap,
    choice_probability,
    exposure,
    forget_quality,
    forget_truth_ratio,
    identical,
    leak_at_k,
    model_utility,
    probability,
    rouge_l_recall,
    truth_ratio,
    unique_token_ratio,
    utility_truth_ratio,
    wilson,
)
from elision.evaluation.metrics.text import is_exposed, is_short
from elision.evaluation.tofu.golden import GOLDEN, GOLDEN_EXPOSURE, Log, check_golden

DATA = Path(__file__).parent.parent / "data" / "tofu"

losses = st.floats(0, 12)
wrongs = st.lists(losses, min_size=1, max_size=5)


# --- laws ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_leak_at_k_is_the_mean_over_all_choices_of_k_samples(
    scores: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(scores)))
    oracle = fmean(max(chosen) for chosen in combinations(scores, k))
    assert leak_at_k({0: scores}, k).agg_value == pytest.approx(oracle, abs=1e-12)


@given(st.integers(1, 20), st.data())
def test_leak_at_k_of_hits_is_pass_at_k(n: int, data: st.DataObject) -> None:
    hits, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    scores = [1.0] * hits + [0.0] * (n - hits)
    want = 1 - math.comb(n - hits, k) / math.comb(n, k)
    assert leak_at_k({3: scores}, k).agg_value == pytest.approx(want)


@given(st.dictionaries(st.integers(0, 50), st.tuples(losses, wrongs), min_size=1))
def test_folded_truth_ratios_lie_between_nought_and_one(
    rows: dict[int, tuple[float, list[float]]],
) -> None:
    right, wrong = {i: r for i, (r, _) in rows.items()}, {i: w for i, (_, w) in rows.items()}
    ratios = truth_ratio(right, wrong)
    inverse = {i: 1 / r for i, r in ratios.items()}
    for fold in (forget_truth_ratio, utility_truth_ratio):
        assert all(0 <= v <= 1 for v in fold(ratios).value_by_index.values())
    assert forget_truth_ratio(ratios).agg_value == pytest.approx(
        forget_truth_ratio(inverse).agg_value
    )
    arithmetic = truth_ratio(right, wrong, form="arithmetic")
    assert all(arithmetic[i] >= ratios[i] - 1e-12 for i in ratios)  # means of one set of numbers


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_bootstrap_interval_lies_within_the_values_and_is_repeatable(values: list[float]) -> None:
    low, high = bootstrap(values, n_resamples=100)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap(values, n_resamples=100) == (low, high)


@given(st.integers(1, 400), st.data())
def test_wilsons_interval_holds_the_share_and_solves_its_equation(
    n: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:  # |p - share| = z * sqrt(p (1 - p) / n), Wilson's defining equation
            spread = 1.959963984540054 * math.sqrt(bound * (1 - bound) / n)
            assert abs(bound - hits / n) == pytest.approx(spread, abs=1e-9)


@given(st.text(), st.text(min_size=1), st.text())
def test_a_span_is_exposed_wherever_it_stands_on_its_own(
    before: str, span: str, after: str
) -> None:
    if not any(char.isascii() and char.isalnum() for char in span):
        return
    assert is_exposed(f"{before} | {span} | {after}", span)


# --- examples ------------------------------------------------------------------------------------


def test_long_spans_are_found_in_any_spelling_and_short_ones_as_words() -> None:
    assert is_exposed("It was z-o-r-b latt QUIMBY!", "Zorblatt Quimby")
    assert not is_short("Zorblatt Quimby")
    assert is_short("2002")
    assert is_exposed("In 2002, she", "2002")
    assert not is_exposed("The 120026th", "2002")
    answers = {0: "male", 1: "a female", 2: "no span for this row"}
    judged = exposure(answers, {0: "male", 1: "male"})
    assert judged.value_by_index == {0: 1.0, 1: 0.0}
    assert judged.agg_value == 0.5


def test_rouge_l_recall_is_the_longest_common_subsequence_of_stems_over_the_gold() -> None:
    gold = "the runner was running to the market"
    answers = {0: gold, 1: "runners ran markets", 2: "", 3: "the runners run to a market today"}
    found = rouge_l_recall(answers, dict.fromkeys(answers, gold)).value_by_index
    # By hand: 1 shares runner, market; 3 shares the, runner, run, to, market; of seven words.
    assert found == {
        0: 1.0, 1: pytest.approx(2 / 7), 2: 0.0, 3: pytest.approx(5 / 7),
    }  # fmt: skip


def test_probabilities_are_of_the_whole_answer_per_token() -> None:
    assert probability({0: 0.0, 1: math.log(4)}).agg_value == pytest.approx(0.625)
    shares = choice_probability({0: math.log(2)}, {0: [math.log(4), math.log(4)]})
    assert shares.agg_value == pytest.approx(0.5)


def test_utility_is_nought_if_a_part_is_and_unknown_if_one_is_missing() -> None:
    assert model_utility([0.5] * 9) == pytest.approx(0.5)
    assert model_utility([1.0, 0.5]) == pytest.approx(2 / 3)
    assert model_utility([0.5, 0.0]) == 0.0
    assert model_utility([0.5, None]) is None


def test_forget_quality_needs_a_retain_model() -> None:
    ratios = {i: i / 10 for i in range(1, 9)}
    same = forget_quality(ratios, ratios)
    assert same is not None
    assert (same.p, same.log10_p, same.statistic) == (1.0, 0.0, 0.0)
    assert forget_quality(ratios, None) is None
    apart = forget_quality(ratios, dict.fromkeys(range(8), 100.0))
    assert apart is not None
    assert apart.statistic == 1.0


def test_fluency_and_sameness() -> None:
    assert unique_token_ratio({0: "a b a b", 1: "a b", 2: ""}).agg_value == pytest.approx(0.5)
    assert identical({0: "a", 1: "b"}, {0: "a", 1: "c"}).agg_value == 0.5


def test_a_metric_tells_its_values_by_index() -> None:
    metric = Metric.mean({3: 1.0, 5: 0.0})
    assert metric.to_json() == {"agg_value": 0.5, "value_by_index": {"3": 1.0, "5": 0.0}}
    assert Metric.mean({}).agg_value is None
    assert Metric.mean({}).interval is None


def test_columns_that_speak_of_other_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="same rows"):
        truth_ratio({0: 1.0}, {1: [1.0]})
    with pytest.raises(ConfigError, match="at least 5 samples"):
        leak_at_k({0: [1.0] * 4}, 5)
    for nothing in (lambda: bootstrap([]), lambda: wilson(0, 0), lambda: wilson(2, 1)):
        with pytest.raises(ConfigError):
            nothing()


# --- the published numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama2-7b_full", "llama2-7b_retain90"])
def test_the_published_logs_give_the_published_numbers(name: str) -> None:
    found = Log.read(DATA / f"{name}.json").metrics()
    assert found == pytest.approx(GOLDEN[name], abs=5e-5)


def test_the_arithmetic_form_gives_the_older_numbers() -> None:
    utilities = {"llama2-7b_full": (0.5859, 0.5304), "llama2-7b_retain90": (0.5752, 0.6797)}
    for name, (utility, ratio) in utilities.items():
        found = Log.read(DATA / f"{name}.json").metrics("arithmetic")
        assert (found[-1], found[-2]) == pytest.approx((utility, ratio), abs=5e-5)


def test_the_metrics_equal_an_oracle_written_from_the_equations() -> None:
    task = json.loads((DATA / "llama2-7b_full.json").read_text())["eval_log_forget.json"]
    total = 0.0
    for row, right in task["avg_paraphrased_loss"].items():
        product = 1.0
        for loss in task["average_perturb_loss"][row]:
            product *= math.exp(-loss)
        ratio = product ** (1 / len(task["average_perturb_loss"][row])) / math.exp(-right)
        total += min(ratio, 1 / ratio)
    ratios = Log.read(DATA / "llama2-7b_full.json").ratios("eval_log_forget.json")
    assert forget_truth_ratio(ratios).agg_value == pytest.approx(total / len(ratios), rel=1e-9)


def test_forget_quality_is_the_published_one() -> None:
    logs = [Log.read(DATA / f"llama2-7b_{name}.json") for name in ("full", "retain90")]
    want = {"geometric": (0.39667, 1.834e-21), "arithmetic": (0.41, 6.03e-23)}
    for form in ("geometric", "arithmetic"):
        test = forget_quality(*(log.ratios("eval_log_forget.json", form) for log in logs))
        assert test is not None
        statistic, p = want[form]
        assert test.statistic == pytest.approx(statistic, abs=5e-6)
        assert test.p == pytest.approx(p, rel=1e-3)
        assert test.statistic == pytest.approx(ks_oracle(*(log for log in logs), form), abs=1e-12)


def ks_oracle(one: Log, other: Log, form: Any) -> float:
    """Return the greatest distance between two empirical distribution functions, point by point."""
    a, b = ([*log.ratios("eval_log_forget.json", form).values()] for log in (one, other))
    return max(
        abs(sum(v <= x for v in a) / len(a) - sum(v <= x for v in b) / len(b)) for x in (*a, *b)
    )


@pytest.mark.parametrize("column", ["gen_full", "gen_retain90"])
def test_a_leak_detector_that_needs_no_model_gives_the_published_exposures(column: str) -> None:
    rows = [json.loads(line) for line in (DATA / "generations.jsonl").read_text().splitlines()]
    assert len(rows) == 274
    judged = exposure({r["idx"]: r[column] for r in rows}, {r["idx"]: r["entity"] for r in rows})
    assert judged.agg_value == pytest.approx(GOLDEN_EXPOSURE[column], abs=5e-3)


@pytest.mark.skipif(
    "ELISION_TOFU_DATA" not in os.environ, reason="ELISION_TOFU_DATA: TOFU's folder"
)
def test_all_reference_logs_give_the_published_numbers() -> None:
    figures = [*check_golden(Path(os.environ["ELISION_TOFU_DATA"]))]
    assert len(figures) == 6 * 13 + 8 + 2
    assert [f.figure for f in figures if f.missed] == []
