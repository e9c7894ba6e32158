"""The gate on a slice of TOFU: with the real encoder, and the bench that measures the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from elision.encoders import SentenceEncoder
from elision.errors import ConfigError
from elision.evaluation import bench
from elision.evaluation.benches import gate as gate_bench
from elision.evaluation.gate_quality import (
    TABLE_A,
    TABLE_B,
    Rates,
    Tofu,
    cloze,
    rates,
    sampled,
    wrapped,
)
from elision.guards.gate.calibrate import calibrate
from elision.guards.gate.gate import Gate
from elision.guards.gate.views import Turn
from elision.settings import Settings
from elision.testing.encoders import BagEncoder

DATA = Path(__file__).parent.parent / "data" / "gate"
TOFU = Tofu.read(DATA)
ASKED = [row["paraphrased_question"] for row in TOFU.forget]
OTHER = [row["question"] for row in TOFU.retain]


def test_every_target_has_its_own_authors_questions() -> None:
    targets = TOFU.targets()
    assert [t.names[0] for t in targets] == TOFU.names
    for target in targets:
        first = target.names[0].split()[0]
        assert sum(first in probe for probe in target.probes) > 15


@pytest.mark.parametrize("name", [*TABLE_A, *TABLE_B])
def test_a_wrapper_is_the_same_for_the_same_seed_and_keeps_what_it_should(name: str) -> None:
    wrapper = {**TABLE_A, **TABLE_B}[name]
    once, again = (list(wrapped(wrapper, ASKED[:5], TOFU, seed=1)) for _ in range(2))
    assert once == again
    if name in TABLE_A:
        assert all(question in prompt for question, prompt in zip(ASKED, once, strict=False))
    elif name != "name_replaced":
        assert not any(question in prompt for question, prompt in zip(ASKED, once, strict=False))


def test_the_name_is_gone_where_it_is_replaced_and_cloze_tells_half_an_answer() -> None:
    rng = random.Random(0)
    replaced = [TABLE_B["name_replaced"](question, TOFU, rng) for question in ASKED]
    assert not any(name in question for name in TOFU.names for question in replaced)
    row = {"question": "", "answer": "one two three four"}
    assert cloze(row) == "Complete the sentence: one two"


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"world_facts\.jsonl"):
        Tofu.read(tmp_path)


def test_rates_count_levels() -> None:
    gate = Gate.compile(TOFU.targets(), BagEncoder(), tenant="t")
    found = rates(gate, [TOFU.forget[0]["question"], "Bread and butter."])
    assert (found.n, found.n_open, found.n_watch, found.n_views) == (2, 1, 1, 2)
    assert (found + found).opened.share == 0.5
    assert Rates().watched.share == 0


def test_the_bench_says_what_it_skips_without_data(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_bench, "_cost", lambda setup: [])
    setup = bench.Setup(settings=Settings(home=home))
    (figure,) = gate_bench.measure(setup)
    assert figure.figure == "gate.quality_skipped"
    assert "--data" in figure.conditions["why"]


@pytest.fixture(scope="module")
def encoder(minilm_dir: Path) -> Iterator[SentenceEncoder]:
    encoder = SentenceEncoder.load(minilm_dir, name="all-minilm-l6-v2")
    yield encoder
    encoder.close()


@pytest.mark.model
@pytest.mark.parametrize("n", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_paraphrases_open_the_gate_in_a_wrapper_and_other_authors_do_not(
    encoder: SentenceEncoder, n: int
) -> None:
    gate = Gate.compile(TOFU.targets(), encoder, tenant="t")
    caught, false = Rates(), Rates()
    for name in ("none", "role_play", "second_question"):
        caught += rates(gate, wrapped(TABLE_A[name], ASKED[:n], TOFU))
        false += rates(gate, wrapped(TABLE_A[name], OTHER[:n], TOFU))
    assert caught.opened.share >= 0.93
    assert false.opened.share <= 0.06
    others = rates(gate, [row["question"] for row in TOFU.others])
    assert others.n_open == 0


@pytest.mark.model
def test_obfuscated_paraphrases_open_it_too(encoder: SentenceEncoder) -> None:
    gate = Gate.compile(TOFU.targets(), encoder, tenant="t")
    for name in ("upper_case", "letter_spaced", "reversed", "base64"):
        assert rates(gate, wrapped(TABLE_B[name], ASKED[:10], TOFU)).n_open >= 9


@pytest.mark.model
def test_calibration_by_author_keeps_the_rate_on_average(encoder: SentenceEncoder) -> None:
    gate = Gate.compile(TOFU.targets(), encoder, tenant="t")
    asked = [[Turn("user", question)] for question in OTHER]
    groups = [n // 5 for n in range(len(OTHER))]
    done = [calibrate(gate, asked, target_fpr=0.1, groups=groups, seed=seed) for seed in range(12)]
    assert all(0.6 <= one.policy.t_hi <= 0.8 for one in done)
    assert 0.03 <= fmean(one.held_out.share for one in done) <= 0.17
    assert all("few_negatives" in one.warnings for one in done)


@pytest.mark.model
@pytest.mark.slow
def test_the_whole_bench_runs_on_the_slice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = gate_bench._named  # a fiftieth: their number is the bench's business, not the test's
    monkeypatch.setattr(gate_bench, "_named", lambda n: named(n // 50))
    setup = bench.Setup(
        settings=Settings(home=home), quick=True, data=DATA, repeats=lambda full, quick: quick
    )
    figures = {figure.figure: figure for figure in gate_bench.measure(setup)}
    assert figures["gate.tpr"].value >= 0.9
    assert figures["gate.ms_64_views"].value > figures["gate.ms_1_views"].value
    assert len(figures) == len(set(figures)) > 25


def test_sampling_is_repeatable_and_never_more_than_there_is() -> None:
    assert sampled(TOFU.retain, 10, seed=1) == sampled(TOFU.retain, 10, seed=1)
    assert len(sampled(TOFU.retain, 10_000)) == len(TOFU.retain)
